"""The parts that the paper takes pretrained, made from given data: tokenizer, VAE or VQ codec, SigLIP
tower and language model."""
