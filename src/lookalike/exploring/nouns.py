"""Words that clusters are named by where images have no labels and the encoder knows words: kinds of things."""

_WORDS = """
airplane animal apple apartment-building armchair artwork baby backpack bag ball banana bathroom beach bed bedroom
bee bicycle bird boat book bottle bowl box bracelet bread bridge building bus butterfly cabinet cake camera candle
car cartoon castle cat chair chart cheese church city clock clothes cloud coat coffee coin computer cow crowd cup
curtain dance desert desk diagram dish document dog door drawing dress drink duck earrings elephant face family farm
festival field fire fireworks fish flag flower food football forest fork fruit furniture garden glass glasses guitar
hand handbag hat horse hospital house ice-cream insect jewelry kettle keyboard kitchen knife lake lamp landscape
laptop leaf logo map market meal meat medicine mirror monkey monument motorcycle mountain mug museum mushroom music
necklace night notebook office painting paper park party pasta person phone piano pizza plant plate portrait poster
pottery rabbit rain receipt restaurant ring river road robot rocket room rug salad sandwich scissors sculpture sea
screenshot sheep shell ship shirt shoe shop sign skirt skyscraper snow sofa soup spoon sports stadium stage station
street suit sunglasses sunset swimming-pool table tea telephone television temple text tool toothbrush tower toy
train tree truck trousers T-shirt umbrella vase vegetables village wall watch water waterfall wedding window wine
wood writing
"""
NOUNS = tuple(word.replace("-", " ") if word != "T-shirt" else word for word in _WORDS.split())
