"""Networks that training makes anew or changes: UNet, autoencoder, the module that is trained."""
