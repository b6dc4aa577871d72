"""From the state of a calculator's controls to the names its steps use: the Python half of `environment` in js/.

Hardware gives beta and memory; a precision gives b_w and the peak F it runs at on that device; a model gives its
sizes and the KV bytes of one sequence at the context asked for. A machine that was measured comes with its control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labcore import facts
from labcore.core.errors import InputError
from labcore.facts import Hardware, ModelConfig


def peak(precision: Mapping[str, Any], device: Hardware) -> float | None:
    """Dense peak FLOP/s at which `precision` computes on `device`: its first listed rate that exists, or None."""
    return next((device.peak[rate] for rate in precision["peaks"] if device.peak.get(rate)), None)


def device_of(control: Mapping[str, Any], id: str) -> Hardware:
    """The device that a hardware control means by `id`: one it brings along under "devices", else one of `facts`.

    Raises InputError as `facts` does.
    """
    if (row := control.get("devices", {}).get(id)) is None:
        return facts.hardware(id)
    return Hardware(id=id, **{name: value for name, value in row.items() if name != "measured"})


def model_config(chosen: str | Mapping[str, Any] | ModelConfig) -> ModelConfig:
    """A preset's id, a Hugging Face config as a dict, or a ModelConfig. Raises InputError as `facts` does."""
    if isinstance(chosen, ModelConfig):
        return chosen
    return facts.model(chosen) if isinstance(chosen, str) else ModelConfig.from_hf(chosen)


def choice_of(spec: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """The choice with that value. Raises InputError listing the values there are."""
    for choice in spec["choices"]:
        if choice["value"] == value:
            return choice
    known = ", ".join(repr(c["value"]) for c in spec["choices"])
    raise InputError(f"{spec['id']}={value!r} is not one of {known}")


def _check_number(spec: Mapping[str, Any], value: float) -> float:
    if not spec["low"] <= value <= spec["high"] or (spec.get("integer") and value != int(value)):
        kind = "a whole number" if spec.get("integer") else "a number"
        raise InputError(
            f"{spec['id']}={value!r}: {spec['label']} must be {kind} from {spec['low']:,} to {spec['high']:,}"
        )
    return value


def of_model(config: ModelConfig, known: Mapping[str, Any]) -> dict[str, Any]:
    """A model's names: its parameters, and where `known` has a context L and b_kv (bytes per KV element) its cache.

    P: parameters one token passes through; P_total: all; P_embed: embedding and head; P_dense: those every token uses;
    P_expert: those of one expert in one of n_moe layers. All are None where the config does not tell.
    """
    total, expert, layers = _count(config, "parameters"), 0, 0
    if config.moe:
        layers = config.n_layers - config.moe.dense_layers
        idle = config.moe.n_experts - config.moe.top_k
        expert = 0 if total is None else (total - config.active_parameters()) // (layers * idle)
    experts, chosen = (config.moe.n_experts, config.moe.top_k) if config.moe else (0, 0)
    weights = {
        "P": _count(config, "active_parameters"),
        "P_total": total,
        "P_embed": _count(config, "embedding_parameters"),
        "P_dense": None if total is None else total - layers * experts * expert,
        "P_expert": expert,
        "n_moe": layers,
        "E": experts,
        "k": chosen,
        "moe": int(config.moe is not None),
    }
    return weights | _cache(config, known["L"], known["b_kv"]) if "L" in known else weights


def _cache(config: ModelConfig, L: int, b_kv: float) -> dict[str, Any]:
    """n_layers: layers that keep a cache; L_kv: tokens a mean layer of those keeps, below L where windows cut;
    kv_sequence: KV bytes of one sequence; kappa: KV bytes a token before any window cuts. For absorbed MLA there is one
    KV head, and d_h is d_c + d_R/2: scores cost d_c + d_R and values d_c multiply-adds a head where ordinary attention
    spends d_h on each.
    """
    mla, kappa, held = config.mla, config.kv_bytes_per_token(b_kv), config.kv_bytes(L, b_kv)
    return {
        "mla": int(mla is not None),
        "d_c": mla.kv_rank if mla else 0,
        "d_R": mla.rope_dim if mla else 0,
        "n_layers": config.n_kv_layers,
        "n_q": config.n_heads,
        "n_kv": 1 if mla else config.n_kv_heads,
        "d_h": mla.kv_rank + mla.rope_dim / 2 if mla else config.head_dim,
        "kappa": kappa,
        "kv_sequence": held,
        "L_kv": held / kappa if kappa else 0,
    }


def _count(config: ModelConfig, which: str) -> int | None:
    return None if config.weights is None else getattr(config, which)()


def environment(inputs: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a calculator's steps start from, out of the state of its inputs. Raises InputError for bad state."""
    of_kind = lambda *kinds: [i for i in inputs if i["kind"] in kinds]  # noqa: E731
    device = {i["id"]: device_of(i, state[i["id"]]) for i in of_kind("hardware")}
    known: dict[str, Any] = {i["id"]: _check_number(i, state[i["id"]]) for i in of_kind("number")}
    for i in of_kind("choice"):
        known |= choice_of(i, state[i["id"]])["set"]
    for i in of_kind("hardware"):
        chosen = device[i["id"]]
        known |= {"beta": chosen.bandwidth, "memory": chosen.capacity_bytes}
        known |= {f"peak_{dtype}": rate for dtype, rate in chosen.peak.items()}
    for i in of_kind("precision"):
        chosen, choice = device[i["of"]], choice_of(i, state[i["id"]])
        rate = peak(choice, chosen)
        if rate is None:
            able = [c["value"] for c in i["choices"] if peak(c, chosen)]
            raise InputError(f"{i['id']}={choice['value']!r}: {chosen.name} has no such rate; it has {', '.join(able)}")
        known |= choice["set"] | {"F": rate}
    for i in of_kind("model"):
        known |= of_model(model_config(state[i["id"]]), known)
    return known
