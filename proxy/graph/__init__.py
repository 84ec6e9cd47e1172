"""All knowledge of Meta: calls, replies, quotas and webhooks."""
