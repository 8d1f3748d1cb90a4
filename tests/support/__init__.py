"""What tests of several levels share: servers, processes, and how to wait for them."""
