"""The parts that the paper takes pretrained, made from given data: tokenizer, VAE, SigLIP tower and language model."""
