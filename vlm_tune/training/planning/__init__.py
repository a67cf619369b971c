"""What a training run would adapt and take, before anything is loaded: widths, work, memory, time, dollars."""
