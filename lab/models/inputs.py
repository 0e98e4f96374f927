"""Padded torch inputs from rows of `shared.inference.tokenizer.TextEncoder`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lab.models.families import EncoderFamily
from shared.inference.tokenizer import EncodedText, TokenIds


def torch_inputs(
    rows: Sequence[EncodedText | TokenIds], family: EncoderFamily, pad: int
) -> dict[str, Tensor]:
    """Return ``input_ids``, ``attention_mask`` and, if the family takes them, ``token_type_ids``.

    All have the shape (rows, tokens of the longest row). ``pad`` is the id of the padding token.
    """
    longest = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad)
    mask_BT = torch.zeros((len(rows), longest), dtype=torch.int64)
    types_BT = torch.zeros_like(mask_BT)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = torch.as_tensor(row.ids_T)
        types_BT[i, : len(row)] = torch.as_tensor(row.type_ids_T)
        mask_BT[i, : len(row)] = 1
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    return inputs | ({"token_type_ids": types_BT} if family.takes_token_types else {})
