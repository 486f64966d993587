"""Where a model's config and tensors come from: the Hub, a volume, a ConfigMap, a folder."""
