"""The loss over trained positions only, in chunks that never hold the logits of the whole batch.

Prompt tokens cost no product with the vocabulary, and the gradient is made in the forward pass, so that each chunk of
logits lives once. On two CPU cores this is where stock trainers lose most (52 % of a step measured in TRL's default).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

# Rows of logits held at once. On a CPU 128 x 49,152 floats (25 MB) stay near the caches; a GPU wants larger products.
CHUNK = {"cpu": 128, "cuda": 2048}


class TrainedTokenLoss(torch.autograd.Function):
    """Sum of -log p(target) over positions, from hidden states.

    forward(hidden [n, d], weight [v, d], bias [v] or None, targets [n] int64, softcap or None) -> scalar float32.
    With `softcap` c the logits are c * tanh(logits / c) (Gemma 2, arXiv:2408.00118). Gradients reach `hidden` and,
    where they learn, `weight` and `bias`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        """Compute the sum, and the gradients where any will be asked for."""
        want_hidden, want_weight, want_bias = ctx.needs_input_grad[:3]
        weight_in = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if want_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if want_bias and bias is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        size = CHUNK.get(hidden.device.type, 1024)
        for start in range(0, hidden.shape[0], size):
            part = slice(start, start + size)
            logits = functional.linear(hidden[part], weight_in).float()
            if bias is not None:
                logits += bias
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            norm = torch.logsumexp(logits, dim=-1, keepdim=True)
            chosen = targets[part, None]
            total += (norm - logits.gather(1, chosen)).sum()
            if not (want_hidden or want_weight or want_bias):
                continue
            slope = 1 - (logits / softcap) ** 2 if softcap is not None else None
            gradient = logits.sub_(norm).exp_()
            gradient.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
            if slope is not None:
                gradient *= slope
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            narrow = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = narrow @ weight_in
            if grad_weight is not None:
                grad_weight += (narrow.T @ hidden[part]).float()
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients that the forward pass made."""
        (grad,) = grads
        grad_hidden, grad_weight, grad_bias = ctx.gradients
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(ctx.weight_dtype),
            None if grad_bias is None else grad_bias * grad,
            None,
            None,
        )


def trained_token_loss(
    hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """Return the summed negative log-likelihood, in nats, of every target that is not -100.

    Args:
        hidden: last hidden states, [rows, length, width].
        head: the output layer.
        targets: next tokens, [rows, length].
        softcap: the model's final logit softcap, or None.
    """
    chosen = targets != -100
    apply: Any = TrainedTokenLoss.apply
    loss: torch.Tensor = apply(hidden[chosen], head.weight, head.bias, targets[chosen], softcap)
    return loss


def head_is_plain(model: Any) -> bool:
    """Whether a causal language model's logits are its head's product, softcapped as its config says, and no more.

    Some families scale the logits (Granite, Cohere). It is measured on a few tokens rather than looked up.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return False
    device = head.weight.device
    tokens = torch.arange(4, device=device)[None] % head.weight.shape[0]
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits.float()
        hidden = backbone(model)(input_ids=tokens, use_cache=False).last_hidden_state
        own = head(hidden.to(head.weight.dtype)).float()
    cap = softcap(model)
    if cap is not None:
        own = cap * torch.tanh(own / cap)
    return torch.allclose(logits, own, rtol=2e-2, atol=2e-2)


def backbone(model: Any) -> Any:
    """Return the part of a causal language model below its head."""
    return getattr(model, model.base_model_prefix)


def softcap(model: Any) -> float | None:
    """Return the final logit softcap of the model's config, or None."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return float(cap) if cap else None
