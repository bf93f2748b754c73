"""What tests share: an endpoint on loopback, databases, stores, virtual time, warm processes."""
