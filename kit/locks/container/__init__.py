"""What runs inside containers of base images: on their own Python's library, without a network."""
