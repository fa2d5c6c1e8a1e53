"""A small general text, by which to see what a base forgets: our own, so that no model has read it.

English of several kinds and some lines of code: 2.5 kB, so that its score tells a change of some
percent and no more.
"""

GENERAL_TEXT = (
    """The bakery on the corner opens at six. By then the first trays of rolls have been out of the
oven for half an hour, and Mrs. Adeyemi, who has run the shop since her husband's illness, knows
without looking which of her customers will come through the door. "The usual?" she asks, and most
of them nod. On Saturdays she sells twice as much, but she says that Tuesdays are better, because
people stay and talk.""",
    """A bridge carries its load in one of three ways. A beam bends, an arch pushes outwards against
its supports, and a cable hangs from towers and pulls on anchors in the ground. Which of them is
chosen depends on the width of the river, on the rock below it, and on what steel and concrete cost
in that year. Long spans are nearly always hung, because a cable is strongest when it is pulled.""",
    """Dear Mr. Lindqvist,

thank you for your letter of 14 March. We are sorry that the second parcel arrived damaged. A new
one left our warehouse this morning and should reach you by Friday; there is no need to return the
old one. If anything else is missing, please call us on weekdays between nine and five.""",
    """Heat the oil in a heavy pan, add the onions, and cook them slowly until they are soft but not
brown, about ten minutes. Stir in the garlic, the cumin and a pinch of salt. After another minute
pour in the tomatoes with their juice and half a cup of water, cover the pan, and let everything
simmer for twenty minutes. Serve it with rice or flat bread.""",
    """"You said that you had locked it." "I said that I thought I had." He put the lamp down on the
stairs and listened. Somewhere above them a window was moving in the wind, and with every gust a
little light fell across the wall and went away again. "Well," said his sister at last, "one of us
has to go up, and I am not wearing shoes." """,
    """The council voted on Thursday evening to keep the swimming pool open for another two years,
while engineers examine the roof. Repairs are expected to cost between three and four million, a
third of which the region has promised to pay. Several parents had spoken against closing it; one
member of the council, who did not want to give her name, called the decision "late, but right".""",
    """def average_by_month(rows):
    totals = {}
    for day, value in rows:
        month = day.strftime("%Y-%m")
        count, total = totals.get(month, (0, 0.0))
        totals[month] = (count + 1, total + value)
    return {month: total / count for month, (count, total) in sorted(totals.items())}
""",
)
"""Documents of the text."""
