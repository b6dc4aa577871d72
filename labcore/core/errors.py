"""The errors labcore raises on purpose. Each message names the offending value and the fix."""


class InputError(ValueError):
    """A value the caller passed cannot be used."""


class UnitError(InputError):
    """A quantity carries another unit than the one asked for."""


class DataError(InputError):
    """A file is missing a field, contradicts itself, or is damaged; names file and field."""


class FetchError(RuntimeError):
    """A download failed, was cut short, or has the wrong hash; nothing was left in the cache."""
