// The ladder of spaced reviews in local calendar days: the page's half of labcore/learn/ladder.py. Days are ISO dates.
(function (W) {
  "use strict";
  const LADDER = [0, 3, 7, 14, 21];
  const TOP = 21;
  const RETURN = 3;
  const MS = 86400000;
  const number = (day) => Date.parse(`${day}T00:00:00Z`) / MS; // no time zone enters the arithmetic
  const add = (day, days) => new Date((number(day) + days) * MS).toISOString().slice(0, 10);
  const between = (from, to) => number(to) - number(from);

  // the reader's own calendar day
  function today() {
    const now = new Date();
    const two = (n) => String(n).padStart(2, "0");
    return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  }

  const isDay = (text) => typeof text === "string" && /^\d{4}-\d\d-\d\d$/.test(text) && Number.isFinite(number(text)) && add(text, 0) === text;
  const below = (rung) => LADDER[Math.max(0, LADDER.indexOf(rung) - 1)];
  const enter = (rung, start) => ({ rung, base: 0, since: start });

  function due(place, interview) {
    if (place.rung === null) return null;
    let wait = place.rung - place.base;
    if (interview && interview > place.since) {
      const needed = TOP - place.base;
      const available = between(place.since, interview) - 1;
      if (available < needed) wait = Math.min(wait, Math.max(1, Math.floor((wait * available) / needed)));
    }
    return add(place.since, wait);
  }

  function answer(place, outcome, day, interview) {
    if (outcome === "fail") return { rung: RETURN, base: 0, since: day };
    const when = due(place, interview);
    if (when === null || day < when) return place; // practice
    if (outcome === "hold") {
      const rung = Math.max(RETURN, place.rung);
      return { rung, base: below(rung), since: day };
    }
    if (place.rung === TOP) return { rung: null, base: TOP, since: day };
    return { rung: LADDER[LADDER.indexOf(place.rung) + 1], base: place.rung, since: day };
  }

  const words = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
  const spoken = (day) => words.format(new Date(number(day) * MS));

  W.ladder = { LADDER, add, between, today, isDay, enter, due, answer, spoken };
})(globalThis.labcoreWidgets);
