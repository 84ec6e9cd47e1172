"""Plain hits before Flask: the one part of HTTP that reads what storage keeps."""
