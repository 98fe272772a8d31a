"""The parts that the paper takes pretrained, trained on given data: tokenizer, VAE or VQ codec, SigLIP
tower and language model."""
