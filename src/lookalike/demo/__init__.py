"""Made-up products to draw, and the page that tells what came of them."""
