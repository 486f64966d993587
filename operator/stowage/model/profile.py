"""The model profile: everything about a model that sizing and forecasting need, and nothing else.

A profile is a value: it is made once from a checkpoint summary, is hashable, and is compared, cached and
passed around freely. It holds facts of the model, never choices of a deployment, and it must never be
filled with a guess: what is not known is refused before a profile exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from stowage.model.tensors import ParameterTensor


@dataclass(frozen=True, slots=True)
class AttentionProfile:
    """Grouped-query attention of one layer.

    At most one of `sliding_window` and `chunk` (local chunks) is set, in tokens; both None: every token is
    kept. `value_dim` is the size of a value head, None where it equals `head_dim`. `shares_cache`: the layer
    reads the keys and values of an earlier layer and keeps none. `source` is "self", "cross" (keys and values
    of the encoder's `cross_tokens` positions) or "encoder" (nothing is cached). `index_dim`: an indexer chooses
    the blocks of tokens that are read, and keeps one key of that size for each token besides (0: none).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    chunk: int | None = None
    value_dim: int | None = None
    shares_cache: bool = False
    source: str = "self"
    cross_tokens: int = 0
    index_dim: int = 0

    @property
    def value_head_dim(self) -> int:
        """Size of one value head."""
        return self.head_dim if self.value_dim is None else self.value_dim


@dataclass(frozen=True, slots=True)
class LatentAttentionProfile:
    """Multi-head latent attention (MLA) of one layer; the cache holds one latent vector per token.

    `q_lora_rank` None: queries are projected directly. `index_head_dim` is the head size of the sparse-
    attention indexer (DeepSeek V3.2), None where there is none; `index_topk` are the tokens that sparse
    attention reads, in layers without an own indexer too. `tokens_per_state` (DeepSeek V4) is how many tokens
    share one cached vector: 0 keeps none but the `sliding_window` of single tokens, which V4 always has;
    `output_groups` are the groups of heads that its output projection works on apart (0: does not).
    """

    num_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    index_num_heads: int | None = None
    index_head_dim: int | None = None
    index_topk: int | None = None
    tokens_per_state: int = 1
    sliding_window: int | None = None
    output_groups: int = 0

    @property
    def latent_dim(self) -> int:
        """Elements that the cache keeps per token, on every rank."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class StateProfile:
    """A mixer whose memory of the past has a fixed size: state space and linear attention layers.

    `kind` is "mamba1", "mamba2", "gated-delta-net", "kimi-delta", "short-conv" or "lightning".
    `conv_kernel` is the width of the causal convolution (0: none). For mamba1 `inner_size` × `state_size`;
    for mamba2 `num_heads` × `head_dim` × `state_size` with `num_groups`; for delta nets `key_heads` of
    `key_dim` and `num_heads` (value heads) of `head_dim`. `state_dtype` is what config.json asks the
    recurrent state to be kept in, None: the engine's default. `chunk_size` are the tokens that the kernel reads
    at a time (mamba_chunk_size or chunk_size; 0: not stated).
    """

    kind: str
    conv_kernel: int = 0
    inner_size: int = 0
    state_size: int = 0
    num_heads: int = 0
    head_dim: int = 0
    num_groups: int = 0
    key_heads: int = 0
    key_dim: int = 0
    state_dtype: str | None = None
    chunk_size: int = 0


@dataclass(frozen=True, slots=True)
class MlpProfile:
    """A feed-forward block: gate, up and down, or up and down where it is not `gated`."""

    intermediate_size: int
    bias: bool = False
    gated: bool = True


@dataclass(frozen=True, slots=True)
class MoeProfile:
    """A mixture of experts: `num_experts_per_tok` of `num_experts` are used for each token.

    Sizes are those of one expert and of all shared experts together (0: none). `latent_size`: experts work
    on vectors of this size, between two projections; 0: on the hidden size.
    """

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    gated: bool = True
    latent_size: int = 0


Mixer = AttentionProfile | LatentAttentionProfile | StateProfile
FeedForward = MlpProfile | MoeProfile


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One decoder layer: what mixes positions, what follows it, and the tensors it consists of.

    Most layers have one mixer; hybrids with two heads side by side and decoders with cross attention have
    two, and a layer that is only a feed-forward block has none. Names in `tensors` hold `{}` for the
    layer's number.
    """

    mixers: tuple[Mixer, ...]
    feed_forward: FeedForward | None
    tensors: tuple[ParameterTensor, ...]

    def __hash__(self) -> int:
        """Hash without the tensors: they follow from the rest, nearly always."""
        return hash((self.mixers, self.feed_forward, len(self.tensors)))

    @property
    def attention(self) -> AttentionProfile | None:
        """The layer's own attention, where it has one of the usual kind."""
        return next((mixer for mixer in self.mixers if isinstance(mixer, AttentionProfile)), None)


@dataclass(frozen=True, slots=True)
class EncoderProfile:
    """A vision or audio tower, as far as its working memory goes.

    `modality` is "image", "video" or "audio"; `max_item_tokens` are the tokens that the largest item takes
    in the decoder, `max_item_patches` the positions it has inside the tower. `output_size` are the elements
    of one token's embedding. `frame_tokens` (0: none) are the tokens of one step in time of a video, which
    the engine cuts to as many steps as its context has room for. `max_items_per_prompt` is what the engine
    accepts when nobody limits it. `divided`: tensor-parallel ranks share the tower's layers, unless
    `whole_where_indivisible` and they do not divide its heads; `gated`: their feed-forward blocks hold gate
    and up projection at once.
    """

    modality: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_item_tokens: int
    max_item_patches: int
    output_size: int = 0
    frame_tokens: int = 0
    max_items_per_prompt: int = 999
    divided: bool = True
    whole_where_indivisible: bool = False
    gated: bool = False


@dataclass(frozen=True, slots=True)
class RopeCache:
    """A table of cosines and sines, `rows` × `rotary_dim`, that layers with the same embedding share.

    `element_bytes` None: the dtype that the model runs in. `multimodal`: older releases have more rows, since
    they do not know that positions never run ahead of the tokens.
    """

    rows: int
    rotary_dim: int
    element_bytes: int | None = None
    multimodal: bool = False


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model as it will be served.

    `dtype` is what the engine runs under `--dtype auto`, `checkpoint_dtype` what lies on disk.
    `max_model_len` is the longest context that the engine accepts without an override,
    `default_max_model_len` what it takes when nobody says. `checkpoint_bytes` are exact tensor bytes from
    the safetensors headers (None: only config.json is known) and `parameter_evidence` says which of the two
    the tensor list was checked against. `quantization` names the method of a quantised checkpoint as the
    engine does, and `kv_cache_dtype` what such a checkpoint makes of `--kv-cache-dtype auto`. Pipeline
    parallelism needs `min_first_stage_layers` on the first stage, and does not work at all where
    `supports_pipeline` is false. `notes` are sentences for people. `weight_band` is how
    far the bytes of the weights may be off, as a share: 0 where every tensor is known, which is everywhere but in
    architectures that nobody described and that were asked to be estimated. `items_in_one_batch`: tokens of an
    image or video see each other in both directions, so that an item is never cut. `residual_streams` hidden
    states run beside one another between the layers (hyper-connections).
    """

    source: str
    revision: str
    architecture: str
    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[LayerProfile, ...]
    outer_tensors: tuple[ParameterTensor, ...]
    tie_word_embeddings: bool
    dtype: str
    checkpoint_dtype: str
    max_model_len: int
    default_max_model_len: int
    rope: tuple[RopeCache, ...]
    draft_layers: tuple[LayerProfile, ...] = ()
    encoders: tuple[EncoderProfile, ...] = ()
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    checkpoint_bytes: int | None = None
    parameter_evidence: str = "config"
    supports_pipeline: bool = True
    min_first_stage_layers: int = 0
    notes: tuple[str, ...] = ()
    weight_band: float = 0.0
    items_in_one_batch: bool = False
    residual_streams: int = 1

    def __hash__(self) -> int:
        """Hash by what tells profiles apart; hashing every layer for each cache look-up is too slow."""
        return hash((self.source, self.revision, self.quantization, self.dtype, len(self.layers)))

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def padded_vocab_size(self) -> int:
        """Vocabulary rounded up to a multiple of 64, as the engine allocates and splits it."""
        return (self.vocab_size + 63) // 64 * 64
