"""Chat templates: a list of messages becomes the one string the model was trained on.

A checkpoint carries its template as Jinja source. SmolLM2's is written out in Python below, so that it needs no
library; any other template is rendered by jinja2, which must then be installed.
"""

from collections.abc import Sequence

from labcore.core.errors import DataError, InputError

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    + SMOLLM2_SYSTEM
    + "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
) -> str:
    """The prompt for `messages`, ending where the assistant's answer begins if `add_generation_prompt`.

    bos_token, eos_token: what the template writes by these names; "" for a token that the tokenizer puts there itself.
    InputError for messages without role or content, DataError for a checkpoint without a usable template.
    """
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise InputError(f"message {i} is {message!r}; give a dict with the strings 'role' and 'content'")
    if not messages:
        raise InputError("messages is empty; give at least one {'role': 'user', 'content': …}")
    if template is None:
        raise DataError("this checkpoint has no chat template; pass a finished prompt instead of messages")
    if template == SMOLLM2_TEMPLATE:
        return _smollm2(messages, add_generation_prompt)
    names = {"bos_token": bos_token, "eos_token": eos_token}
    return _jinja(template, messages=messages, add_generation_prompt=add_generation_prompt, **names)


def _smollm2(messages: Sequence[Message], add_generation_prompt: bool) -> str:
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": SMOLLM2_SYSTEM}, *messages]
    turns = [f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def _jinja(template: str, **variables) -> str:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # templates come from strangers' files
    except ImportError:
        raise DataError("this checkpoint's chat template needs jinja2: pip install jinja2") from None

    def refuse(reason: str):
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(**variables)
    except Exception as error:  # a template is a stranger's program: it may divide by zero, too
        raise DataError(f"the checkpoint's chat template failed: {error}") from None
