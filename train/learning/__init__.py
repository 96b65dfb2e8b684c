"""How an adapter learns: packs, attention, loss, fused layers, memory, trainer, checkpoints. It knows no flags."""
