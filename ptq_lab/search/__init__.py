"""Plans in, better plans out: everything that improves a quantized model without training it."""
