"""What holds for every loss: gradients, ignored voxels, empty masks, bfloat16; and sums over several outputs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attentus import losses
from attentus.errors import BadInput, UnknownName
from attentus.losses.combine import coarser, halving

FORMS = [
    ("cross-entropy", {}),
    ("cross-entropy", {"weights": [0.5, 1.0, 2.0]}),
    ("dice", {}),
    ("dice", {"style": "release"}),
    ("dice", {"denominator": "squared", "background": False, "batch": True}),
    ("dice", {"denominator": "squared", "reduce": "global"}),
    ("dice", {"weights": [0.5, 1.0, 2.0], "active": [0, 2]}),
    ("dice", {"activation": "sigmoid", "batch": True}),
    ("dice-cross-entropy", {}),
    ("dice-cross-entropy", {"denominator": "squared", "reduce": "global", "weights": [0.5, 1.0, 2.0]}),
    ("dice-cross-entropy", {"activation": "sigmoid", "background": False}),
    ("bce", {}),
    ("bce", {"weights": [0.5, 1.0, 2.0]}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "alpha": 0.75, "weights": [0.5, 1.0, 2.0]}),
    ("focal", {"activation": "sigmoid", "alpha": 0.25}),
    ("tversky", {}),
    ("tversky", {"gamma": 0.75, "background": False}),
    ("tversky", {"activation": "sigmoid", "batch": True}),
    ("anu-hybrid", {}),
    ("anu-hybrid", {"form": "focal"}),
    ("anu-hybrid", {"form": "literal"}),
    ("anu-hybrid", {"activation": "sigmoid"}),
]
SIGMOID = [(name, options) for name, options in FORMS if name == "bce" or options.get("activation") == "sigmoid"]
every_form = pytest.mark.parametrize(("name", "options"), FORMS)
every_sigmoid_form = pytest.mark.parametrize(("name", "options"), SIGMOID)


def sure(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that say exactly `target` with all but certainty."""
    return 80.0 * torch.nn.functional.one_hot(target.long(), classes).movedim(-1, 1).float() - 40


def test_every_name_is_among_the_forms():
    assert {name for name, _ in FORMS} == set(losses.names())


def test_dice_by_hand():
    # Two classes, four voxels, probabilities of class 1: .8 .6 .3 .1; truth 1 1 0 0.
    p = torch.tensor([0.8, 0.6, 0.3, 0.1])
    logits = torch.stack([torch.zeros(4), torch.logit(p)])[None]
    target = torch.tensor([[1, 1, 0, 0]])
    foreground = 2 * (0.8 + 0.6) / (1.8 + 2)
    background = 2 * (0.7 + 0.9) / (2.2 + 2)
    expected = 1 - (foreground + background) / 2
    assert losses.create("dice")(logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_dice_of_a_class_absent_from_both_costs_nothing():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    assert losses.create("dice")(sure(target, 3), target).item() == pytest.approx(0, abs=1e-4)


def test_the_release_style_doubles_the_smoothing():
    dice = losses.create("dice", style="release")
    target = torch.zeros(1, 1, 2, dtype=torch.long)
    target[0, 0, 1] = 1
    # Class 0 and class 1 hold one voxel each and score 1.004975; class 2 is absent and scores 2.
    expected = 1 - (1.0049751 + 1.0049751 + 2) / 3
    assert dice(sure(target, 3), target).item() == pytest.approx(expected, abs=1e-5)


def test_dice_is_averaged_over_samples_or_counted_over_the_batch():
    target = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1]])
    said = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    each = losses.create("dice")(sure(said, 2), target).item()
    pooled = losses.create("dice", batch=True)(sure(said, 2), target).item()
    # Sample 1: absent class 0 scores 1, class 1 scores 1. Sample 2: class 0 scores 6/7, class 1 scores 0.
    assert each == pytest.approx(1 - (1 + 1 + 6 / 7 + 0) / 4, abs=1e-4)
    assert pooled == pytest.approx(1 - (6 / 7 + 8 / 9) / 2, abs=1e-4)


def test_inactive_classes_get_no_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 5, requires_grad=True)
    target = torch.randint(0, 2, (2, 5, 5)) * 2
    loss = losses.create("dice", active=[0, 2])(logits, target)
    loss.backward()
    assert 0 <= loss.item() <= 1
    assert logits.grad[:, [1, 3]].abs().max() == 0
    assert logits.grad[:, [0, 2]].abs().min() > 0


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])  # P(1) = 0.75, 0.5
    target = torch.tensor([[1, 0]])
    loss = losses.create("cross-entropy")(logits, target).item()
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    weighted = losses.create("cross-entropy", weights=[1.0, 3.0])(logits, target).item()
    assert weighted == pytest.approx((3 * math.log(4 / 3) + math.log(2)) / 4)


def test_the_sum_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    parts = 0.5 * losses.create("dice")(logits, target) + 2 * losses.create("cross-entropy")(logits, target)
    both = losses.create("dice-cross-entropy", dice=0.5, cross_entropy=2.0)(logits, target)
    torch.testing.assert_close(both, parts)


@pytest.mark.parametrize(
    "option",
    [
        {"denominator": "squared"},
        {"reduce": "global"},
        {"background": False},
        {"batch": True},
        {"smooth": 1.0},
        {"weights": [0.5, 1.0, 2.0]},
        {"activation": "sigmoid"},
    ],
)
def test_the_sum_passes_its_options_on(option):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    entropy = losses.create("bce" if "activation" in option else "cross-entropy", weights=option.get("weights"))
    parts = losses.create("dice", **option)(logits, target) + entropy(logits, target)
    torch.testing.assert_close(losses.create("dice-cross-entropy", **option)(logits, target), parts)
    assert abs(parts - losses.create("dice-cross-entropy")(logits, target)) > 1e-3


def test_deep_supervision_weighs_its_outputs():
    assert halving(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 6))
    outputs = tuple(torch.randn(1, 2, 6) for _ in range(2))
    loss = losses.create("cross-entropy")
    single = [loss(output, target) for output in outputs]
    torch.testing.assert_close(losses.DeepSupervision(loss)(outputs, target), (2 * single[0] + single[1]) / 3)
    torch.testing.assert_close(losses.DeepSupervision(loss, [1, 1])(outputs, target), single[0] + single[1])


def test_coarse_outputs_are_compared_with_every_second_fourth_voxel():
    target = torch.arange(5 * 7).view(1, 5, 7) % 2
    assert torch.equal(coarser(target, (5, 7)), target)
    assert torch.equal(coarser(target, (3, 4)), target[:, ::2, ::2])
    assert torch.equal(coarser(target, (2, 2)), target[:, ::4, ::4])
    with pytest.raises(BadInput, match=r"\[4, 4\] is not a halved form of the target's \[5, 7\]"):
        coarser(target, (4, 4))


def test_outputs_of_weight_0_are_left_out_and_weights_must_be_as_many_as_outputs():
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 6, 6))
    fine, coarse = torch.randn(1, 2, 6, 6), torch.full((1, 2, 3, 3), torch.nan)
    loss = losses.create("cross-entropy")
    total = losses.DeepSupervision(loss, [1.0, 0.0])((fine, coarse), target)
    torch.testing.assert_close(total, loss(fine, target))
    with pytest.raises(BadInput, match="The net has 2 outputs, but 3 weights"):
        losses.DeepSupervision(loss, [1, 1, 1])((fine, coarse), target)


def test_a_plain_sum_and_the_weights_of_the_papers():
    """With a loss of 1 everywhere: ANU-Net Eq. 8 over four heads gives 4, DPC-Net Eq. 13 over 13 maps 0.95."""

    class One(torch.nn.Module):
        def forward(self, logits, target):
            return torch.ones(())

    target, output = torch.zeros(1, 4), torch.zeros(1, 2, 4)
    assert losses.DeepSupervision(One(), (1.0,) * 4)((output,) * 4, target) == 4
    level = [1 / (2**i * 5) for i in range(5)]
    weights = [*level, *level[1:], *level[:4]]  # F_0..F_4, spatial 1..4, semantic 0..3
    assert losses.DeepSupervision(One(), weights)((output,) * 13, target).item() == pytest.approx(0.95)


def test_regions_are_made_after_a_coarser_output_has_taken_its_voxels():
    torch.manual_seed(0)
    table = torch.tensor([[0, 0], [1, 0], [1, 1]], dtype=torch.bool)
    target = torch.tensor([[0, 1, 2, 2, 255, 1]])
    outputs = (torch.randn(1, 2, 6), torch.randn(1, 2, 3))
    loss = losses.create("bce")
    fine = torch.tensor([[[0, 1, 1, 1, 255, 1], [0, 0, 1, 1, 255, 0]]])
    total = losses.DeepSupervision(loss, [1, 1], table)(outputs, target)
    torch.testing.assert_close(total, loss(outputs[0], fine) + loss(outputs[1], fine[..., ::2]))
    torch.testing.assert_close(losses.DeepSupervision(loss, [1, 1])(outputs, fine), total)


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("filled", [0, 1, "random"])
def test_contract(name, options, dtype, filled):
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 5, 6)) if filled == "random" else torch.full((2, 4, 5, 6), filled)
    for scale in (1.0, 100.0):
        logits = (scale * torch.randn(2, 3, 4, 5, 6)).to(dtype).requires_grad_()
        loss = losses.create(name, **options)(logits, target.to(torch.uint8))
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert loss >= 0 or options.get("style") == "release"
        loss.backward()
        assert torch.isfinite(logits.grad).all()


@every_form
@pytest.mark.parametrize("extreme", [0.0, 50.0, 1e4])
def test_certainty_right_or_wrong_leaves_loss_and_slope_finite(name, options, extreme):
    signs = torch.tensor([[[1.0, -1, 1, -1], [1, 1, -1, -1], [-1, -1, 1, 1]]])
    logits = (extreme * signs).requires_grad_()
    loss = losses.create(name, **options)(logits, torch.tensor([[0, 1, 2, 0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@every_form
def test_gradients_are_the_slopes(name, options):
    torch.manual_seed(0)
    if name == "anu-hybrid" and "form" not in options:
        options = {**options, "gamma": 0.0}  # the safe form's weight is a constant on purpose
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0, 1, 2, 255, 1], [2, 2, 0, 0, 255]])
    loss = losses.create(name, **options)
    assert loss(logits, target).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits)


@every_form
def test_ignoring_a_voxel_is_taking_it_away(name, options):
    torch.manual_seed(0)
    loss = losses.create(name, **options)
    logits = torch.randn(2, 3, 3, 4, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 4))
    target[..., 3] = losses.IGNORE
    found = loss(logits, target)
    torch.testing.assert_close(found, loss(logits[..., :3], target[..., :3]))
    found.backward()
    assert logits.grad[..., 3].abs().max() == 0
    assert logits.grad[..., :3].abs().max() > 0


@every_sigmoid_form
def test_ignoring_a_voxel_of_all_masks_is_taking_it_away(name, options):
    torch.manual_seed(0)
    loss = losses.create(name, **options)
    logits, target = torch.randn(2, 3, 3, 4), torch.randint(0, 2, (2, 3, 3, 4))
    target[..., 3] = losses.IGNORE
    torch.testing.assert_close(loss(logits, target), loss(logits[..., :3], target[..., :3]))


@every_sigmoid_form
def test_a_voxel_may_be_ignored_in_one_mask_only(name, options):
    torch.manual_seed(0)
    loss = losses.create(name, **options)
    logits = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.randint(0, 2, (2, 3, 4))
    target[0, 1, 2] = losses.IGNORE
    loss(logits, target).backward()
    assert (logits.grad == 0).nonzero().tolist() == [[0, 1, 2]]


@every_form
def test_a_sample_without_annotation_is_taken_away(name, options):
    torch.manual_seed(0)
    loss = losses.create(name, **options)
    logits, target = torch.randn(2, 3, 8), torch.randint(0, 3, (2, 8))
    target[0] = losses.IGNORE
    torch.testing.assert_close(loss(logits, target), loss(logits[1:], target[1:]))


@every_form
def test_nothing_annotated_costs_nothing(name, options):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = losses.create(name, **options)(logits, torch.full((2, 4, 4), losses.IGNORE, dtype=torch.uint8))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().max() == 0


@every_form
def test_sixteen_bits_are_computed_in_thirty_two(name, options):
    torch.manual_seed(0)
    loss = losses.create(name, **options)
    logits, target = torch.randn(2, 3, 20, 20).bfloat16(), torch.randint(0, 3, (2, 20, 20))
    exact = loss(logits.float(), target)
    assert torch.equal(loss(logits, target), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(logits, target), exact)


@pytest.mark.parametrize(("name", "options"), [form for form in FORMS if "style" not in form[1]])
def test_the_truth_costs_nothing(name, options):
    target = torch.randint(0, 3, (2, 6, 6)) if "active" not in options else 2 * torch.randint(0, 2, (2, 6, 6))
    # The literal form stops at p = 0.999, where a foreground voxel costs 0.75 * 0.001001 / 0.499^2 = 0.003.
    least = 0.003 if options.get("form") == "literal" else 1e-4
    assert losses.create(name, **options)(sure(target, 3), target).item() == pytest.approx(0, abs=least)


@every_form
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_order_does_not_matter_and_ratios_stay_in_0_to_1(name, options, seed, scale):
    source = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 3, 7, generator=source)
    target = torch.randint(0, 3, (3, 7), generator=source)
    loss = losses.create(name, **options)
    found = loss(logits, target)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), found)
    torch.testing.assert_close(loss(logits.flip(2), target.flip(1)), found)
    if options.get("style") != "release":
        assert found >= -1e-6
        assert found >= loss(sure(target, 3), target) - 1e-6 or options.get("form") == "literal"
        assert found <= 1 + 1e-6 or name not in {"dice", "tversky"}


@pytest.mark.parametrize(("name", "options"), [*dict(FORMS).items(), *SIGMOID[::2]])
def test_it_compiles_in_one_graph(name, options):
    torch.manual_seed(0)
    torch.compiler.reset()
    loss = losses.create(name, **options)
    logits, target = torch.randn(2, 3, 6), torch.randint(0, 3, (2, 6))
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


@pytest.mark.parametrize("name", ["dice", "cross-entropy", "dice-cross-entropy", "bce", "focal", "tversky"])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0]])
def test_weights_are_one_per_output_and_not_negative(name, weights):
    with pytest.raises(BadInput, match=r"3 outputs, but the loss has 2 weights|0 or more, and not all 0"):
        losses.create(name, weights=weights)(torch.zeros(1, 3, 4), torch.zeros(1, 4))


def test_every_loss_but_cross_entropy_takes_regions():
    """Training with regions names the activation, whatever the loss."""
    for name in set(losses.names()) - {"cross-entropy"}:
        loss = losses.create(name, activation="sigmoid")(torch.zeros(1, 2, 4), torch.ones(1, 2, 4))
        assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dice", {"denominator": "square"}),
        ("dice", {"reduce": "classes"}),
        ("dice", {"style": "releas"}),
        ("dice", {"activation": "relu"}),
        ("dice", {"smooth": 0.0}),
        ("dice", {"active": []}),
        ("dice", {"active": [0], "background": False}),
        ("dice-cross-entropy", {"activation": "relu"}),
        ("cross-entropy", {"activation": "sigmoid"}),
        ("bce", {"activation": "softmax"}),
        ("tversky", {"alpha": -0.1}),
        ("tversky", {"gamma": 0.0}),
        ("focal", {"gamma": -1.0}),
        ("focal", {"alpha": 2.0}),
        ("focal", {"activation": "relu"}),
        ("anu-hybrid", {"form": "printed"}),
        ("anu-hybrid", {"delta": 0.0}),
        ("anu-hybrid", {"activation": "relu"}),
    ],
)
def test_values_an_option_does_not_take_are_refused(name, options):
    with pytest.raises(BadInput, match=next(iter(options))):
        losses.create(name, **options)


def test_unknown_losses_are_answered():
    with pytest.raises(UnknownName, match=r"No loss is called 'dise'\. Did you mean 'dice'"):
        losses.create("dise")
