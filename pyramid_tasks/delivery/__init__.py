"""From a call to the broker: at once, or when the transaction commits."""
