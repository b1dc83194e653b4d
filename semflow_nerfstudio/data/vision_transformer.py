"""A plain vision transformer whose weights are named as in DINOv2's published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEAD_DIM = 64


class _Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))


class _Block(nn.Module):
    """Attention and a two-layer network, each with norm before and scale after."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        self.ls1, self.ls2 = _Scale(dim), _Scale(dim)

    def forward(self, x: Float[Tensor, "F N D"]) -> Float[Tensor, "F N D"]:
        heads = x.shape[-1] // HEAD_DIM
        qkv = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, heads, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]).transpose(1, 2).flatten(2)
        x = x + self.ls1.gamma * self.attn["proj"](mixed)
        return x + self.ls2.gamma * self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTransformer(nn.Module):
    """Images -> one feature a patch."""

    def __init__(self, dim: int, depth: int, patch: int, positions: int) -> None:
        """`positions`: trained position embeddings, a square of patches and one more for the class token."""
        super().__init__()
        self.patch, self.dim = patch, dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, stride=patch)})
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> VisionTransformer:
        """Build the network that a checkpoint belongs to, whatever its size, and load it.

        Raises:
            KeyError, RuntimeError: the checkpoint is of another architecture.
        """
        kernel, positions = state["patch_embed.proj.weight"], state["pos_embed"]
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        network = cls(kernel.shape[0], depth, kernel.shape[-1], positions.shape[1])
        network.load_state_dict({key: value for key, value in state.items() if key != "mask_token"})
        return network

    def forward(self, images: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "F D h w"]:
        """Normalised features of the patches; H and W are multiples of the patch size."""
        x = self.patch_embed["proj"](images)
        rows, columns = x.shape[-2:]
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + self._positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(-1, (rows, columns))

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 N D"]:
        own, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(patches.shape[1] ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        square = patches.transpose(1, 2).unflatten(-1, (side, side))
        resized = nn.functional.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([own, resized.flatten(2).transpose(1, 2)], dim=1)
