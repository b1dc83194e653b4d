import numpy as np
import pytest
import torch

from semflow_nerfstudio.visuals import layout, legend

NAMES = ["floor", "wall", "person", "balloon", "ball", "pillar"]
COLORS = np.array([[128, 64, 128], [70, 70, 70], [220, 20, 60], [0, 130, 180], [250, 170, 30], [1, 2, 3]], np.uint8)
GREEN = (10, 200, 90)


def flat(height: int, width: int, color: tuple[int, int, int] = GREEN) -> np.ndarray:
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = color
    return picture


def area_of(picture: np.ndarray, color: np.ndarray) -> int:
    return int((picture == color).all(axis=-1).sum())


def boxes_of(picture: np.ndarray, color: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((picture == color).all(axis=-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("width", [240, 480, 960, 1920])
@pytest.mark.parametrize("place", ["below", "top-left", "top-right", "bottom-left", "bottom-right"])
def test_every_class_has_a_square_swatch_of_its_exact_colour(width, place):
    picture = flat(width * 9 // 16, width)
    result = legend.add_legend(picture, NAMES, COLORS, place)
    side = legend.font_size_for(width) - 2  # without the outline
    for color in COLORS:
        top, bottom, left, right = boxes_of(result, color)
        assert (bottom - top + 1, right - left + 1) == (side, side)
        assert area_of(result, color) == side * side
    if place == "below":
        assert np.array_equal(result[: picture.shape[0]], picture)
        assert (result[picture.shape[0] :] == legend.TEXT).any()
    else:
        assert result.shape == picture.shape
        assert np.array_equal(picture, flat(*picture.shape[:2])), "the input must not be drawn on"


def test_only_the_classes_given_are_shown():
    result = legend.add_legend(flat(135, 240), NAMES[2:4], COLORS[2:4])
    assert area_of(result, COLORS[2]) and area_of(result, COLORS[3])
    assert not any(area_of(result, color) for color in (COLORS[0], COLORS[1], COLORS[4], COLORS[5]))


def test_names_are_drawn_beside_their_swatch():
    named = legend.add_legend(flat(135, 240), ["person"], COLORS[2:3])
    nameless = legend.add_legend(flat(135, 240), [""], COLORS[2:3])
    _, _, _, right = boxes_of(nameless, COLORS[2])
    differs = (named != nameless).any(axis=(0, 2)).nonzero()[0]
    assert differs.min() > right and differs.max() - differs.min() > 20


def test_strip_height_is_the_same_for_all_frames_and_grows_with_the_names():
    few = legend.add_legend(flat(90, 240), NAMES[:2], COLORS[:2])
    again = legend.add_legend(flat(90, 240, (0, 0, 0)), NAMES[:2], COLORS[:2])
    many = legend.add_legend(flat(90, 240), NAMES * 3, np.concatenate([COLORS] * 3))
    assert few.shape == again.shape and many.shape[0] > few.shape[0]
    assert np.array_equal(few[90:], again[90:])


@pytest.mark.parametrize("place", ["below", "top-right"])
def test_long_names_and_many_classes_stay_inside_the_picture(place):
    names = [f"a class with an extraordinarily long name {i}" for i in range(60)]
    colors = np.random.default_rng(0).integers(0, 255, (60, 3)).astype(np.uint8)
    result = legend.add_legend(flat(67, 120), names, colors, place)
    assert result.shape[1] == 120 and result.dtype == np.uint8
    assert area_of(result, colors[0]) > 0


def test_legend_refuses_what_does_not_fit_together():
    with pytest.raises(ValueError, match="2 names needs colours"):
        legend.add_legend(flat(90, 240), NAMES[:2], COLORS[:3])
    with pytest.raises(ValueError, match="Unknown place 'middle'"):
        legend.add_legend(flat(90, 240), NAMES, COLORS, "middle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ("top-left", slice(0, 60), slice(0, 120)),
        ("top-right", slice(0, 60), slice(120, 240)),
        ("bottom-left", slice(60, 120), slice(0, 120)),
        ("bottom-right", slice(60, 120), slice(120, 240)),
    ],
)
def test_captions_are_drawn_in_their_corner_only(place, rows, columns):
    picture = flat(120, 240)
    result = legend.add_caption(picture, "colour", place)
    changed = (result != picture).any(axis=-1)
    assert changed[rows, columns].sum() == changed.sum() > 200
    assert (result[changed] > 200).all(axis=-1).any(), "bright letters on the dark ground"


def test_captions_that_are_too_long_are_cut_and_empty_ones_change_nothing():
    assert legend.add_caption(flat(40, 60), "a caption much longer than the picture").shape == (40, 60, 3)
    assert np.array_equal(legend.add_caption(flat(40, 60), ""), flat(40, 60))


def test_time_stamp_changes_with_time_but_not_in_width():
    picture = flat(120, 240)
    boxes = [(legend.add_time_stamp(picture, time) != picture).any(axis=(0, 2)) for time in (0.0, 0.111, 0.888)]
    widths = [box.sum() for box in boxes]
    assert max(widths) - min(widths) <= 1
    assert not np.array_equal(legend.add_time_stamp(picture, 0.25), legend.add_time_stamp(picture, 0.5))


def test_to_picture_rounds_clamps_and_repeats_single_channels():
    image = torch.tensor([[[-0.5, 0.5, 2.0], [float("nan"), 1.0, 0.1]]])
    assert layout.to_picture(image).tolist() == [[[0, 128, 255], [0, 255, 26]]]
    assert layout.to_picture(torch.full((1, 2, 1), 0.2)).tolist() == [[[51, 51, 51]] * 2]
    with pytest.raises(ValueError, match="shape"):
        layout.to_picture(torch.zeros(4, 4))


@pytest.mark.parametrize(("size", "padded"), [((4, 6), (4, 6)), ((5, 6), (6, 6)), ((4, 7), (4, 8)), ((5, 7), (6, 8))])
def test_padding_to_even_sizes_repeats_the_border(size, padded):
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    result = layout.pad_to_even(picture)
    assert result.shape == (*padded, 3)
    assert np.array_equal(result[: size[0], : size[1]], picture)
    assert np.array_equal(result[-1, -1], picture[-1, -1])


def test_grid_places_cells_and_separators():
    red, blue = flat(10, 20, (255, 0, 0)), flat(6, 10, (0, 0, 255))
    result = layout.grid([[red, blue], [None, red]], separator=2)
    assert result.shape == (10 + 2 + 10, 20 + 2 + 20, 3)
    assert np.array_equal(result[:10, :20], red)
    assert np.array_equal(result[2:8, 27:37], blue), "smaller pictures are centred"
    assert np.array_equal(result[12:, 22:], red)
    assert (result[10:12] == legend.BACKGROUND).all() and (result[:, 20:22] == legend.BACKGROUND).all()
    assert len(np.unique(result[12:, :20].reshape(-1, 3), axis=0)) == 1
    with pytest.raises(ValueError, match="at least one"):
        layout.grid([[None]])


def test_side_by_side_keeps_the_order_and_captions_each_panel():
    panels = {"colour": flat(90, 160, (200, 0, 0)), "semantics": flat(90, 160, (0, 0, 200))}
    plain = layout.side_by_side(panels, captions=False)
    assert np.array_equal(plain[:, :160], panels["colour"]) and np.array_equal(plain[:, 164:], panels["semantics"])
    captioned = layout.side_by_side(panels)
    changed = (captioned != plain).any(axis=-1)
    assert changed[:30, :80].any() and changed[:30, 164:].any() and not changed[45:].any()


def test_overview_has_a_row_per_time_and_a_column_per_name():
    columns = {"colour": [flat(90, 160, (i * 50, 0, 0)) for i in range(3)], "flow": [flat(90, 160), None, None]}
    result = layout.overview_grid(columns, [0.0, 0.5, 1.0], separator=4)
    assert result.shape == (3 * 90 + 8, 2 * 160 + 4, 3)
    assert [result[94 * row + 40, 80, 0] for row in range(3)] == [0, 50, 100]
    assert tuple(result[40, 164 + 80]) == GREEN and tuple(result[94 + 40, 164 + 80]) != GREEN
    with pytest.raises(ValueError, match="one picture per time"):
        layout.overview_grid(columns, [0.0, 1.0])


@pytest.mark.parametrize("place", ["below", "bottom-right", "top-right"])
def test_video_frames_are_even_and_hold_panels_legend_and_stamp(place):
    panels = {"colour": flat(135, 241, (200, 0, 0)), "semantics": flat(135, 241, (0, 0, 200))}
    frame = layout.video_frame(panels, NAMES, COLORS, 0.25, place)
    assert frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0
    assert all(area_of(frame, color) > 50 for color in COLORS)
    other = layout.video_frame(panels, NAMES, COLORS, 0.75, place)
    assert frame.shape == other.shape and not np.array_equal(frame, other)
    with pytest.raises(ValueError, match="class_colors"):
        layout.video_frame(panels, NAMES)
