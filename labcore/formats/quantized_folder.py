"""A folder of GPTQ or AWQ weights, as the Hugging Face hub ships them: packed tensors and a quantization_config.

A linear called `name` is stored as name.qweight, name.qzeros and so on; everything else keeps its tensor. config.json
says under "quantization_config" which of the two layouts it is, so that vLLM or transformers can serve the folder.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from labcore.core.errors import DataError, InputError
from labcore.core.files import atomic_write
from labcore.formats import awq_checkpoint, gptq_checkpoint
from labcore.formats.group_codes import GroupCodes
from labcore.formats.safetensors_folder import SafetensorsFolder

BITS = {"gptq": gptq_checkpoint.BITS, "gptq_v2": gptq_checkpoint.BITS, "awq": (4,)}  # that each layout holds
LAYOUTS = tuple(BITS)
MARK = ".qweight"


def write_quantized(
    path: str | Path,
    layout: str,
    weights: Mapping[str, GroupCodes],
    others: Mapping[str, Tensor],
    config: dict,
    files: Iterable[Path] = (),
) -> Path:
    """Write `weights` packed by `layout` ("gptq" is version 1, "gptq_v2" version 2, "awq") and `others` as they are.

    files: copied under their names. config: the model's config.json, to which the quantization_config is added; it is
    written last, so that a folder with a config is whole. InputError, before anything is written, for a weight the
    layout has no place for.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise InputError("writing safetensors needs the library: pip install safetensors") from None
    described = quantization_config(layout, weights)
    tensors = {name: tensor.contiguous() for name, tensor in others.items()}
    for name, weight in weights.items():
        try:
            parts = awq_checkpoint.pack_awq(weight) if layout == "awq" else _gptq(weight, layout)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path} ({error.strerror}): give another one") from None
    atomic_write(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    for file in files:
        atomic_write(folder / file.name, file.read_bytes())
    atomic_write(folder / "config.json", json.dumps(config | {"quantization_config": described}, indent=2) + "\n")
    return folder


def read_quantized(path: str | Path) -> tuple[dict[str, GroupCodes], dict[str, Tensor]]:
    """The packed weights of a folder by the names of their linears, and every other tensor.

    DataError for a folder without a quantization_config, one of another kind, or parts that do not belong together.
    """
    folder = SafetensorsFolder(path)
    described = folder.config.get("quantization_config")
    if not isinstance(described, dict):
        raise DataError(f"{path}: config.json has no quantization_config; this checkpoint is not quantized")
    layout = _layout_of(described, path)
    parts_of = awq_checkpoint.PARTS if layout == "awq" else gptq_checkpoint.PARTS
    names = [name.removesuffix(MARK) for name in folder.files if name.endswith(MARK)]
    weights = {}
    for name in names:
        parts = {part: folder.tensor(f"{name}.{part}") for part in parts_of}
        try:
            weights[name] = (
                awq_checkpoint.unpack_awq(parts)
                if layout == "awq"
                else gptq_checkpoint.unpack_gptq(parts, described.get("bits", 0), _version(layout))
            )
        except (DataError, InputError) as error:
            raise DataError(f"{path}: {name}: {error}") from None
    packed = {f"{name}.{part}" for name in names for part in parts_of}
    return weights, {name: folder.tensor(name) for name in folder.files if name not in packed}


def check_bits(layout: str, bits: int) -> None:
    """InputError unless there is such a layout and it holds codes of so many bits."""
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r}; the layouts are {', '.join(LAYOUTS)}")
    if bits not in BITS[layout]:
        raise InputError(f"bits={bits}: the layout {layout} holds codes of {', '.join(map(str, BITS[layout]))} bits")


def quantization_config(layout: str, weights: Mapping[str, GroupCodes]) -> dict:
    """What config.json says about `weights`; InputError if they do not share group size and bits, or the layout
    does not hold so many."""
    kinds = {(weight.bits, _group_size(weight)) for weight in weights.values()}
    if len(kinds) != 1:
        raise InputError(f"the weights have (bits, group size) {sorted(kinds)}; a checkpoint has one of each")
    ((bits, group),) = kinds
    check_bits(layout, bits)
    if layout == "awq":
        return {"quant_method": "awq", "bits": bits, "group_size": group, "zero_point": True, "version": "gemm"}
    symmetric = all(weight.symmetric for weight in weights.values())
    ordered = any(weight.g_idx is not None for weight in weights.values())
    described = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": ordered, "sym": symmetric}
    return described | {"checkpoint_format": layout}


def _group_size(weight: GroupCodes) -> int:
    """Columns of a group; -1, the hub's word for it, if one group is the whole row."""
    columns, groups = weight.codes.shape[1], weight.scale.shape[1]
    return -1 if groups == 1 else -(-columns // groups)


def _layout_of(described: dict, path: str | Path) -> str:
    method = described.get("quant_method")
    if method == "awq":
        version = str(described.get("version", "gemm")).lower()
        if version != "gemm" or described.get("bits") != 4:
            raise DataError(
                f"{path}: AWQ version {version!r} with {described.get('bits')} bits; 4-bit 'gemm' can be read"
            )
        return "awq"
    layout = described.get("checkpoint_format", "gptq")
    if method == "gptq" and layout in ("gptq", "gptq_v2"):
        return layout
    raise DataError(f"{path}: quantization method {method!r}, format {layout!r}; {', '.join(LAYOUTS)} can be read")


def _version(layout: str) -> int:
    return 2 if layout == "gptq_v2" else 1


def _gptq(weight: GroupCodes, layout: str) -> dict[str, Tensor]:
    return gptq_checkpoint.pack_gptq(weight, _version(layout))
