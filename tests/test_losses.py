"""The scripts' losses, held to the references' figures and to one another, to the bit."""

from functools import partial
from math import inf, nan

import pytest
import torch

from tests.benchmark.readme import snippet
from tests.common import same_bits
from tests.toy_mdp import reference, without_detach

EPS = 0.2
in_both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def gradient(loss, logp, *rest):
    """Return d loss(logp, *rest) / d logp, shape (batch,)."""
    logp = logp.clone().requires_grad_()
    return torch.autograd.grad(loss(logp, *rest), logp)[0]


def batches(dtype, spreads=(0, 1e-3, 0.2, 1, 30)):
    """Yield (logp, logp_old, adv): log-ratios of each spread, advantages of each sign.

    Most sizes are no power of two: with one, 1/batch is exact and hides the rounding
    that tells one order of products from another.
    """
    gen = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 7, 50, 333):
        for spread in spreads:
            logp, d, x = torch.randn(3, size, generator=gen, dtype=dtype)
            logp_old = logp - (spread * d).clamp(-80, 80)
            some = torch.where(torch.rand(size, generator=gen) < 0.3, 0, x)
            for adv in (x.abs(), -x.abs(), 1000 * x, some, 0 * x):
                yield logp, logp_old, adv


def differ(loss, other, batches, equal=same_bits):
    """Return how many batches tell the two losses' gradients apart, by a bit or more."""
    pairs = [(gradient(loss, *x), gradient(other, *x)) for x in batches]
    assert pairs
    return sum(not equal(x, y) for x, y in pairs)


def swapped(logp, logp_old, adv):
    """Script 5's loss with its products in another order: right, but for rounding."""
    return -(torch.exp(logp - logp_old).detach() * adv * logp).mean()


def log_clip_loss(logp, logp_old, adv):
    """Script 6 with the log written back, as the page has it: the mask of min and clip."""
    names = {"torch": torch, "logp": logp, "adv": adv, "clip_ratio": EPS}
    names["ratio"] = torch.exp(logp - logp_old)
    exec(snippet("keep ="), names)  # noqa: S102 - the page's own text
    return names["loss"]


def test_reference_figures(scripts):
    """The ratio loss is -0.5761, the log loss 0.7986, and their gradients are one; script 5
    without its detach keeps the value and gives the references' wrong gradient."""
    right, wrong = [-0.4321, *[0.1440] * 3], [0.1669, *[-0.0556] * 3]
    for loss, figure, slope in (
        (scripts[4].policy_loss, -0.5761, right),
        (scripts[5].policy_loss, 0.7986, right),
        (without_detach, 0.7986, wrong),
    ):
        value, grad, _ = reference(loss)
        assert value == pytest.approx(figure, abs=5e-5)
        assert grad.tolist() == pytest.approx(slope, abs=5e-5)


@in_both
def test_4_is_5(scripts, dtype):
    """The ratio and the log loss have one gradient in logp, to the bit, on any batch.

    Not without the detach, and only but for rounding with the products of 5 swapped.
    """
    four, some = scripts[4].policy_loss, [*batches(dtype)]
    assert differ(four, scripts[5].policy_loss, some) == 0
    assert differ(four, without_detach, some, torch.allclose) > 0
    assert differ(four, swapped, some, torch.allclose) == 0
    assert differ(four, swapped, some) > 0


@in_both
def test_one_gradient_at_the_old_policy(scripts, dtype):
    """Where logp_old = logp.detach(), scripts 1 to 6 are all the same step."""
    for logp, _, adv in batches(dtype):
        one, two = [adv], [logp, adv]
        rest = {1: one, 2: one, 3: one, 4: two, 5: two, 6: [*two, EPS]}
        grads = [gradient(scripts[n].policy_loss, logp, *rest[n]) for n in rest]
        assert all(same_bits(grad, grads[0]) for grad in grads)


@in_both
def test_6_is_4_inside_the_interval(scripts, dtype):
    """Clipping changes nothing while every ratio is inside; it does once one is not."""
    inside, wide = batches(dtype, (0, 1e-3, 0.03)), [*batches(dtype, (1, 4))]
    four, six = scripts[4].policy_loss, scripts[6].policy_loss
    assert differ(partial(six, clip_ratio=EPS), four, inside) == 0
    assert differ(partial(six, clip_ratio=EPS), four, wide) > 0
    assert differ(partial(six, clip_ratio=1e9), four, wide) == 0


@in_both
def test_6_has_a_log_form(scripts, dtype):
    """Min and clip have the masked log loss's gradient, to the bit but a zero's sign."""
    six = partial(scripts[6].policy_loss, clip_ratio=EPS)
    assert differ(six, log_clip_loss, batches(dtype), torch.equal) == 0


@pytest.mark.parametrize(
    ("adv", "four", "six", "masked"),
    [(1.0, -inf, nan, 0), (-1.0, inf, inf, inf), (0.0, nan, nan, 0)],
)
def test_gradients_where_the_ratio_overflows(scripts, adv, four, six, masked):
    """4 and 5 have the same infinite gradient, or inf * 0, NaN, if adv is 0.

    With adv > 0 the clip of 6 hides the infinity: the loss is finite, but its gradient is
    0 * inf, NaN. With adv < 0 nothing is clipped. The log form drops what is clipped.
    """
    batch = torch.tensor([89.0]), torch.zeros(1), torch.tensor([adv])
    clip = partial(scripts[6].policy_loss, clip_ratio=EPS)
    losses = scripts[4].policy_loss, scripts[5].policy_loss, clip, log_clip_loss
    grads = [gradient(loss, *batch).item() for loss in losses]
    assert grads == pytest.approx([four, four, six, masked], nan_ok=True)
    assert clip(*batch).isfinite() == (adv == 1)


def test_4_and_5_differ_in_value_and_curvature(scripts):
    """Script 5 lacks one term of 4's second derivative: -ratio adv (grad logp)(grad logp)'.

    Only a second-order method, or a printed loss, tells the two apart.
    """
    (four, grad, hess4), (five, grad5, hess5) = (
        reference(scripts[n].policy_loss) for n in (4, 5)
    )
    assert same_bits(grad, grad5)
    assert abs(four - five) > 1
    # the ratio loss is -ratio here, and its gradient -ratio grad logp
    torch.testing.assert_close(hess4 - hess5, torch.outer(grad, grad) / four)
