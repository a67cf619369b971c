"""What the pretraining of the demo model is made of: pictures, questions, tokenizer, architecture, training."""
