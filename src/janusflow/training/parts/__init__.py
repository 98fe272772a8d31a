"""The parts that the paper takes pretrained, made from your own data: tokenizer, VAE, SigLIP tower and language model."""
