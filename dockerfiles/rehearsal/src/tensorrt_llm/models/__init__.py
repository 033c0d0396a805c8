"""Models, at the place where the releases have them."""

from __future__ import annotations

from kit_rehearsal.api import GPTForCausalLM, LLaMAForCausalLM

__all__ = ["GPTForCausalLM", "LLaMAForCausalLM"]
