"""uint8 pixels to augmented float pixels, on the device."""
