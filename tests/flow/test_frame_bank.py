"""The frames that flows read."""

import torch
from builders import HEIGHT, WIDTH, random_frames

from semflow_nerfstudio.flow.frame_bank import FrameBank


def test_frames_keep_their_size_or_are_shrunk_by_area() -> None:
    frames = random_frames()
    assert torch.equal(FrameBank(frames, WIDTH).images, frames.images)
    bank = FrameBank(frames, WIDTH // 2)
    assert bank.images.shape == (4, HEIGHT // 2, WIDTH // 2, 3)
    blocks = frames.images.float().reshape(4, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(dim=(2, 4))
    assert (bank.images.float() - blocks).abs().max() <= 0.5
    point, frame = torch.tensor([[0.2, 0.1, 0.0]]), torch.tensor([2])
    small, full = bank.cameras.project(point, frame)[0], frames.cameras.project(point, frame)[0]
    torch.testing.assert_close(small, full / 2)


def test_pixels_are_what_an_encoder_takes() -> None:
    frames = random_frames()
    frames.images[1, 2, 3] = torch.tensor([0, 255, 51], dtype=torch.uint8)
    pixels = FrameBank(frames, WIDTH).pixels(torch.tensor([1]))
    assert pixels.shape == (1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(pixels[0, :, 2, 3], torch.tensor([-1.0, 1.0, -0.6]))


def test_views_list_all_cameras_of_a_time() -> None:
    bank = FrameBank(random_frames(times=(0.0, 0.0, 0.5, 1.0, 1.0, 1.0)), WIDTH)
    assert bank.timeline.times.tolist() == [0, 0.5, 1]
    assert bank.views.tolist() == [[0, 1, -1], [2, -1, -1], [3, 4, 5]]


def test_frames_need_not_be_in_the_order_of_time() -> None:
    bank = FrameBank(random_frames(times=(1.0, 0.0, 0.5)), WIDTH)
    assert bank.views.tolist() == [[1], [2], [0]]


def test_distortion_is_kept_where_there_is_any() -> None:
    frames = random_frames()
    assert FrameBank(frames, WIDTH).cameras.distortion is None
    object.__setattr__(frames.cameras, "distortion", torch.rand(4, 6) * 0.1)
    bank = FrameBank(frames, WIDTH)
    assert bank.cameras.distortion is not None and torch.equal(bank.cameras.distortion, bank.distortion)


def test_checkpoint_of_another_image_size_wins() -> None:
    frames = random_frames()
    saved = FrameBank(frames, WIDTH)
    other = FrameBank(random_frames(), WIDTH // 2)
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other.images, saved.images) and other.images.shape == (4, HEIGHT, WIDTH, 3)
    assert (other.cameras.width, other.cameras.height) == (WIDTH, HEIGHT)
    points, frame = torch.rand(4, 3), torch.arange(4)
    assert torch.equal(other.cameras.project(points, frame)[0], saved.cameras.project(points, frame)[0])
