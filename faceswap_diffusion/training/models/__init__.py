"""Networks that training builds or changes: UNet, autoencoder, the module that is trained."""
