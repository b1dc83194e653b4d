"""Trained shared networks in a new run: exactly theirs, more classes, one clear error where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semflow_nerfstudio.flow.feature_basis import FeatureBasis
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks
from semflow_nerfstudio.training.adaptation import (
    Classes,
    ClassRecord,
    TrainedShared,
    adapt_shared,
    checkpoint_file,
    describe,
    read_shared,
    read_state,
    scene_names,
)

CONFIG = SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=16)
CLASSES = Classes(
    ("sky", "cät"), torch.tensor([[1, 2, 3], [4, 5, 255]], dtype=torch.uint8), torch.tensor([False, True])
)


def networks(num_classes: int, seed: int, config: SharedConfig = CONFIG) -> SharedNetworks:
    torch.manual_seed(seed)
    return SharedNetworks(config, num_classes)


def trained(path: str = "run/step-000000001.ckpt") -> TrainedShared:
    return TrainedShared(Path(path), networks(2, 1).state_dict(), CLASSES)


def test_classes_survive_a_checkpoint() -> None:
    again = Classes.decode(CLASSES.encode())
    assert again.names == CLASSES.names
    assert torch.equal(again.colors, CLASSES.colors) and torch.equal(again.foreground, CLASSES.foreground)
    empty = Classes.decode(Classes().encode())
    assert empty.names == () and empty.colors.shape == (0, 3)
    record = ClassRecord(Classes())
    record.load_state_dict(ClassRecord(CLASSES).state_dict())
    assert Classes.decode(record.table).names == CLASSES.names


def test_the_same_classes_take_everything() -> None:
    own = networks(2, 2)
    adapt_shared(own, trained(), CLASSES.names)
    expected = trained().state
    assert all(torch.equal(value, expected[name]) for name, value in own.state_dict().items())


def test_new_classes_leave_the_old_rows_alone() -> None:
    own, source = networks(4, 2), trained()
    source.state["class_prior.counts"] = torch.tensor([5.0, 7.0])
    adapt_shared(own, source, (*CLASSES.names, "dog", "fox"))
    assert own.class_prior.counts.tolist() == [5, 7, 0, 0], "new classes were never labelled"
    extended = []
    for name, value in own.state_dict().items():
        given = source.state[name]
        if name == "class_prior.counts":
            continue
        if value.dim() == 0:  # the confidence's temperature
            assert torch.equal(value, given), name
            continue
        assert torch.equal(value[: len(given)], given), name
        if len(value) > len(given):
            extended.append(name)
            new = value[len(given) :]
            assert (new == (given.min() if new.ndim == 1 else 0)).all(), name
    assert len(extended) == 4  # weight and bias of the two last layers
    features = torch.randn(50, CONFIG.encoder_width)
    before = networks(2, 1).static_network(features)
    after = own.static_network(features)
    torch.testing.assert_close(after[:, :2], before)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=12), "of another size .*flow_network"),
        (SharedConfig(encoder_width=6, encoder_hidden=4, hidden_dim=16, attention="mean"), "other shared networks"),
    ],
)
def test_networks_that_do_not_fit_are_refused(config: SharedConfig, words: str) -> None:
    with pytest.raises(ValueError, match=rf"step-000000001\.ckpt has .*{words}.*--pipeline\.model\.shared"):
        adapt_shared(networks(2, 2, config), trained(), CLASSES.names)


def test_another_frame_encoder_has_an_option_of_its_own() -> None:
    """Whichever of the two runs reads frozen features, and for checkpoints that do not say which."""
    option, width = r"another frame encoder: use --pipeline\.datamanager\.frame-features\.encoder", CONFIG.encoder_width
    with pytest.raises(ValueError, match=rf"step-000000001\.ckpt has {option} trainable$"):
        adapt_shared(SharedNetworks(CONFIG, 2, width), trained(), CLASSES.names)
    basis = FeatureBasis.fit(torch.randn(20, width), width, encoder="resnet18", weights="ab")
    for made_by, words in ((basis, "resnet18"), (None, r"as in its config\.yml")):
        state = SharedNetworks(CONFIG, 2, width, made_by).state_dict()
        with pytest.raises(ValueError, match=rf"{option} {words}, whose weights must be there$"):
            adapt_shared(networks(2, 2), TrainedShared(Path("old.ckpt"), state, CLASSES), CLASSES.names)


def test_a_sentence_says_what_was_taken() -> None:
    with_labels = describe(trained(), ("sky", "cät", "dog"), ["dog", "sky"])
    for words in ("run/step", "1 of its 2 classes are matched by name (sky)", "kept", "(cät)", "1 are new (dog)"):
        assert words in with_labels
    assert "its 2 classes (sky, cät) become the scene's" in describe(trained(), CLASSES.names, None)
    assert with_labels.count(". ") == 0 and with_labels.endswith("anew.")


def save(file: Path, pipeline: dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"step": 1, "pipeline": pipeline}, file)
    return file


def test_checkpoints_are_found_and_read(tmp_path: Path) -> None:
    state = {f"_model.shared.{name}": value for name, value in networks(2, 1).state_dict().items()}
    state |= {
        "_model.scenes.A.x": torch.zeros(1),
        "_model.scenes.B.x": torch.zeros(1),
        "_model.scenes.A.y": torch.ones(1),
    }
    state["_model.classes.table"] = CLASSES.encode()
    save(tmp_path / "nerfstudio_models/step-000000009.ckpt", {})
    file = save(tmp_path / "nerfstudio_models/step-000000100.ckpt", state)
    for path in (file, file.parent, tmp_path, tmp_path / "config.yml"):
        assert checkpoint_file(path) == file
    source = read_shared(tmp_path)
    assert source.classes.names == CLASSES.names and source.path == file
    assert source.state.keys() == networks(2, 1).state_dict().keys()
    assert scene_names(read_state(file)) == ("A", "B")


def test_what_cannot_be_adapted_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is no checkpoint and holds none"):
        read_shared(tmp_path / "nowhere")
    (tmp_path / "step-1.ckpt").write_text("text")
    with pytest.raises(ValueError, match=r"step-1\.ckpt is damaged or no checkpoint"):
        read_shared(tmp_path / "step-1.ckpt")
    with pytest.raises(ValueError, match="trained without labels"):
        read_shared(save(tmp_path / "step-2.ckpt", {"_model.scenes.A.x": torch.zeros(1)}))
    with pytest.raises(ValueError, match="does not say which classes"):
        read_shared(save(tmp_path / "step-3.ckpt", {"_model.shared.x": torch.zeros(1)}))
