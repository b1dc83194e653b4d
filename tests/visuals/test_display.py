"""What pictures of classes show, from hand-made rays."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from semflow_nerfstudio.visuals.display import HIGHLIGHT_COLOR, Display, highlighted, target_mask
from semflow_nerfstudio.visuals.outputs import ShownClasses, camera_outputs

NAMES = ("wall", "dog", "cat")
CLASSES = ShownClasses(NAMES, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), torch.tensor([False, True, True]))
LABELS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 2]])
CAMERA = Cameras(torch.eye(4)[None, :3], 4.0, 4.0, 2.0, 1.0, 4, 2, times=torch.tensor([[0.5]]))


def rays() -> dict[str, Tensor]:
    """A wall on the left; on the right a dog that moves over a cat that does not, whose pixel is empty."""
    height, width = LABELS.shape
    one = torch.ones(height, width, 1)
    here = torch.stack(torch.meshgrid(torch.arange(2.0), torch.arange(4.0), indexing="ij"), -1)
    here = torch.cat([here, -one], -1)
    seen = one.clone()
    seen[1, 3] = 0.2
    logits = 4 * torch.nn.functional.one_hot(LABELS, 3).float()
    return {
        "rgb": 0.6 * one.expand(-1, -1, 3),
        "accumulation": seen,
        "depth": one,
        "static_rgb": one.expand(-1, -1, 3),
        "dynamic_rgb": one.expand(-1, -1, 3),
        "dynamicness": (LABELS == 1)[..., None].float(),
        "here": here,
        "there": here,
        "source": here,
        "source_time": 0.25 * one,
        "logits": logits,
    }


def outputs(display: Display, shown: tuple[bool, ...] = (True, True, True)) -> dict[str, Tensor]:
    return camera_outputs(rays(), CAMERA, CLASSES, torch.tensor(shown), display, 0.5, 0.05)


def test_names_of_outputs_do_not_depend_on_the_display() -> None:
    plain = outputs(Display())
    other = outputs(Display(0.1, frozenset({"wall"}), "cat", ("class:dog", "moving")))
    assert list(plain) == list(other) and next(iter(plain)) == "rgb"


def test_colours_and_opacity() -> None:
    shown = outputs(Display(opacity=1.0))
    assert shown["semantics"][0, 2].tolist() == [1, 0, 0] and shown["semantics"][0, 0].tolist() == [0, 0, 1]
    torch.testing.assert_close(shown["semantics_overlay"], shown["semantics"])
    half = outputs(Display())["semantics_overlay"]
    torch.testing.assert_close(half[0, 0], torch.tensor([0.3, 0.3, 0.8]))


@pytest.mark.parametrize("by", ["display", "state"])
def test_some_classes_are_left_uncoloured(by: str) -> None:
    plain = outputs(Display())
    shown = (
        outputs(Display(unlisted=frozenset({"wall"}))) if by == "display" else outputs(Display(), (False, True, True))
    )
    assert not shown["semantics"][0, 0].any()
    torch.testing.assert_close(shown["semantics_overlay"][0, 0], plain["rgb"][0, 0])
    torch.testing.assert_close(shown["semantics"][:, 2:], plain["semantics"][:, 2:])
    torch.testing.assert_close(shown["label"], plain["label"])


def test_class_probability_is_the_chosen_classes() -> None:
    probabilities = rays()["logits"].softmax(-1)
    torch.testing.assert_close(outputs(Display())["class_probability"], probabilities[..., 1:2])
    torch.testing.assert_close(outputs(Display(probability_of="wall"))["class_probability"], probabilities[..., :1])
    with pytest.raises(ValueError, match="no class 'cow'; the classes are wall, dog, cat"):
        outputs(Display(probability_of="cow"))


def test_masks_of_targets() -> None:
    def mask(target: str, membership=None) -> list[list[int]]:
        return target_mask(rays(), target, NAMES, membership).int().tolist()

    def still_things_on_the_left(points: Tensor, times: Tensor, moving: Tensor) -> Tensor:
        assert times.tolist() == [0.25] * 8
        return torch.where((points[:, 1] < 1) & ~moving, 7, -1)

    assert mask("class:dog") == [[0, 0, 1, 1], [0, 0, 1, 0]]
    assert mask("class:cat") == [[0, 0, 0, 0]] * 2, "nothing is seen there"
    assert mask("moving") == [[0, 0, 1, 1], [0, 0, 1, 0]]
    assert mask("static") == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert mask("instance:7", still_things_on_the_left) == [[1, 0, 0, 0]] * 2
    assert mask("instance:7") == [[0, 0, 0, 0]] * 2
    for wrong in ("dog", "class:cow", "instance:x", ""):
        with pytest.raises(ValueError, match=r"is no target|no class"):
            mask(wrong)


def test_a_highlight_tints_and_outlines_what_it_covers_and_nothing_else() -> None:
    plain, shown = outputs(Display()), outputs(Display(highlight=("class:dog",)))
    dog = LABELS == 1
    for name, picture in plain.items():
        changed = (shown[name] != picture).any(-1)
        expected = dog if name in ("rgb", "semantics", "semantics_overlay") else torch.zeros_like(dog)
        assert torch.equal(changed, expected), name
    rgb, mask = torch.zeros(9, 9, 3), torch.zeros(9, 9, dtype=torch.bool)
    mask[2:7, 2:7] = True
    picture = highlighted(rgb, mask)
    assert torch.allclose(picture[2, 4], torch.tensor(HIGHLIGHT_COLOR)) and 0 < picture[4, 4, 0] < 1
    assert torch.equal(highlighted(rgb, torch.zeros_like(mask)), rgb)
