"""Quantized models as folders that others can serve, and back: the GPTQ and AWQ layouts of the Hugging Face hub."""

from pathlib import Path

from torch import Tensor

from labcore.core.errors import DataError, InputError
from labcore.formats.group_codes import GroupCodes
from labcore.formats.quantized_folder import read_quantized, write_quantized
from labcore.formats.safetensors_folder import SafetensorsFolder
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.loader import hub_name, load_model, untied
from labcore.quant.apply import install
from labcore.quant.calibrate import linears
from labcore.quant.spec import QuantizedWeight, QuantSpec

COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json",
)  # fmt: skip


def save_quantized(model: Llama, source: str | Path, out: str | Path, layout: str = "gptq_v2") -> Path:
    """Write a model whose linears were swapped into the folder `out`, configuration and tokenizer from `source`.

    source: the safetensors folder that the model was loaded from. layout: "gptq" (zeros stored as zero - 1), "gptq_v2"
    or "awq". What is not quantized is stored in fp16, a norm that AWQ folded a scale into as well.
    InputError, with nothing written, for weights that are not integer codes, or a layout that cannot hold them.
    """
    folder, weights = SafetensorsFolder(source), {}
    for name, layer in linears(model).items():
        stored = getattr(layer, "stored", None)
        if not isinstance(stored, QuantizedWeight) or layer.round_input is not None:
            raise InputError(
                f"{name} is not a weight of integer codes with plain activations; {layout} holds only those"
            )
        weights[f"model.{name}"] = stored.group_codes()
    others = {hub_name(name): parameter.detach().half() for name, parameter in model.named_parameters()}
    config = {key: value for key, value in folder.config.items() if key != "dtype"}  # the newer name of torch_dtype
    files = [folder.path / name for name in COPIED if (folder.path / name).is_file()]
    return write_quantized(out, layout, weights, others, config | {"torch_dtype": "float16"}, files)


def load_quantized(path: str | Path) -> Llama:
    """The decoder of a GPTQ or AWQ folder, its linears swapped for QuantizedLinear (`serve` runs it on the codes)."""
    packed, others = read_quantized(path)
    source = str(Path(path) / "config.json")
    checkpoint = _Unpacked(DecoderConfig.from_hf(SafetensorsFolder(path).config, source), packed, others)
    model = load_model(checkpoint)
    install(model, {name.removeprefix("model."): _as_weight(codes) for name, codes in packed.items()})
    return model


class _Unpacked:
    """What `load_model` asks of a checkpoint, answered from unpacked tensors."""

    def __init__(self, config: DecoderConfig, packed: dict[str, GroupCodes], others: dict[str, Tensor]):
        self.config, self.packed, self.others = config, packed, others

    def tensor(self, name: str) -> Tensor:
        hub = hub_name(untied(name, self.config))
        if hub.removesuffix(".weight") in self.packed:
            return self.packed[hub.removesuffix(".weight")].dequantize()
        if hub not in self.others:
            raise DataError(f"the folder has no tensor {hub!r}")
        return self.others[hub]


def _as_weight(codes: GroupCodes) -> QuantizedWeight:
    groups, columns = codes.scale.shape[1], codes.codes.shape[1]
    spec = QuantSpec(codes.bits, None if groups == 1 else columns // groups, codes.symmetric)
    return QuantizedWeight(codes.codes, codes.scale, codes.zero, spec, codes.g_idx)
