"""llama.cpp 0.5.0 through the C interface of a prebuilt library, that of npm's `@node-llama-cpp/linux-x64`.

It comes in a build for every kind of x86-64 processor, of which the one that suits this machine is loaded.
Parameters are passed as the library fills them in, but for their first fields, which are those of its `llama.h`.
"""

import ctypes
import sys
from collections.abc import Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

ERROR = 4  # `enum ggml_log_level`
FILE_TYPES = {"bf16": 32, "q8_0": 7, "q4_k_m": 15}  # `enum llama_ftype`
CONTEXT = 1024  # tokens of a prompt and its answer


class _Params(ctypes.Structure):
    """The longest of the library's structures of parameters that are passed by value."""

    _fields_ = [("filled", ctypes.c_uint64 * 64)]


class _ContextParams(ctypes.Structure):
    _fields_ = [("n_ctx", c_uint32), ("n_batch", c_uint32), ("filled", ctypes.c_uint64 * 64)]


class _QuantizeParams(ctypes.Structure):
    _fields_ = [
        *(("threads", c_int32), ("ftype", c_int32), ("output_type", c_int32), ("embedding_type", c_int32)),
        *(("allow_requantize", c_bool), ("filled", ctypes.c_uint64 * 64)),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *(("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", c_void_p), ("pos", c_void_p)),
        *(("n_seq_id", c_void_p), ("seq_id", c_void_p), ("logits", POINTER(c_int8))),
    ]


@ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
def _tell(level: int, text: bytes, _: int) -> None:
    if level == ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


def load(folder: Path) -> ctypes.CDLL:
    """The library with its functions declared, silent but for errors."""
    ggml = ctypes.CDLL(str(next(folder.glob("libggml.v*.so"))), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))), ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path.argtypes = [c_char_p]
    declared = {
        "llama_model_default_params": (_Params, []),
        "llama_model_load_from_file": (c_void_p, [c_char_p, _Params]),
        "llama_context_default_params": (_ContextParams, []),
        "llama_init_from_model": (c_void_p, [c_void_p, _ContextParams]),
        "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
        "llama_get_memory": (c_void_p, [c_void_p]),
        "llama_memory_clear": (None, [c_void_p, c_bool]),
        "llama_model_get_vocab": (c_void_p, [c_void_p]),
        "llama_vocab_n_tokens": (c_int32, [c_void_p]),
        "llama_model_size": (c_uint64, [c_void_p]),
        "llama_adapter_lora_init": (c_void_p, [c_void_p, c_char_p]),
        "llama_set_adapters_lora": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)]),
        "llama_decode": (c_int32, [c_void_p, _Batch]),
        "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
        "llama_model_quantize_default_params": (_QuantizeParams, []),
        "llama_model_quantize": (c_int32, [c_char_p, c_char_p, POINTER(_QuantizeParams)]),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_tell, None)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    library.llama_backend_init()
    return library


def quantise(library: ctypes.CDLL, source: Path, target: Path, kind: str, threads: int) -> None:
    """Write the weights of a GGUF in another of `FILE_TYPES`; raises `OSError` where the library does not."""
    params = library.llama_model_quantize_default_params()
    params.threads, params.ftype, params.allow_requantize = threads, FILE_TYPES[kind], True
    if library.llama_model_quantize(str(source).encode(), str(target).encode(), byref(params)):
        raise OSError(f"llama.cpp did not write {target}")


class Side:
    """One side's model, with the adapter merged, attached or not at all, and its context."""

    def __init__(self, library: ctypes.CDLL, model: int, threads: int, lora: str = "") -> None:
        self._library = library
        params = library.llama_context_default_params()
        params.n_ctx = params.n_batch = CONTEXT
        self._context = library.llama_init_from_model(model, params)
        library.llama_set_n_threads(self._context, threads, threads)
        if lora:
            adapters = (c_void_p * 1)(library.llama_adapter_lora_init(model, lora.encode()))
            library.llama_set_adapters_lora(self._context, adapters, 1, (c_float * 1)(1.0))
        self._vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))

    def forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def read(self, ids: Sequence[int], wanted: Sequence[int] = (-1,)) -> list[np.ndarray]:
        """Append tokens; the logits behind those whose places are `wanted`, each valid until the next call."""
        marks = (c_int8 * len(ids))()
        for place in wanted:
            marks[place] = 1
        batch = _Batch(len(ids), (c_int32 * len(ids))(*ids), None, None, None, None, marks)
        if status := self._library.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode ended with {status}")
        places = [place % len(ids) for place in wanted]
        logits = (self._library.llama_get_logits_ith(self._context, place) for place in places)
        return [np.ctypeslib.as_array(own, (self._vocabulary,)) for own in logits]
