"""The engine: one catch-up scheduler over a paged cache, a model runner, and `LLM` on top."""
