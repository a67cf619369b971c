"""Changed and mixed training photos: the settings, what is drawn, how it is done, and a sheet of samples."""
