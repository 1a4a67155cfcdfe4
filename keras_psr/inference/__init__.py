"""Fitted networks at work: from arrays and photographs to arrays and photographs."""
