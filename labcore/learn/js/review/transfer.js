// Progress to a file and back. A file is checked as a whole before anything changes, and joined, never swapped in.
(function (W) {
  "use strict";
  const { storage } = W.ui;
  const { progress, ladder, diagnostic } = W;
  const FORMAT = "labcore-progress";

  function write() {
    const predictions = Object.fromEntries(storage.keys("predict.").map((key) => [key.slice(8), storage.get(key)]));
    return JSON.stringify({ format: FORMAT, exported: ladder.today(), progress: progress.load(), predictions, diagnostic: diagnostic.load() }, null, 1);
  }

  const isPrediction = (p) => p && typeof p.value === "number" && Number.isFinite(p.value) && typeof p.unit === "string";

  // → { progress, predictions, diagnostic } or { error }: one sentence
  function read(text) {
    const refuse = (why) => ({ error: `This file was not imported: ${why}. Your progress is unchanged.` });
    let data;
    try {
      data = JSON.parse(text);
    } catch {
      return refuse("it is not JSON, or it was cut short");
    }
    if (data?.format !== FORMAT) return refuse("it is not an exported progress file");
    const problem = progress.wrong(data.progress);
    if (problem) return refuse(problem);
    const predictions = Object.entries(data.predictions || {});
    const bad = predictions.find(([, p]) => !isPrediction(p));
    if (bad) return refuse(`prediction ${bad[0]} has no value`);
    const path = data.diagnostic ?? null; // files written before there was one have none
    return path && !diagnostic.good(path) ? refuse("its diagnostic is damaged") : { progress: data.progress, predictions, diagnostic: path };
  }

  // Join a file's content with what is here. Returns a sentence.
  function join({ progress: theirs, predictions, diagnostic: taken }) {
    const mine = progress.load();
    if (taken && !(diagnostic.load()?.day > taken.day)) storage.set(diagnostic.KEY, taken);
    progress.save(progress.merge(mine, theirs));
    for (const [id, prediction] of predictions) if (storage.get(`predict.${id}`) === null) storage.set(`predict.${id}`, prediction);
    const count = Object.keys(theirs.items).length;
    return `Imported ${count} ${count === 1 ? "question" : "questions"}; of two records of the same question the later one was kept.`;
  }

  W.transfer = { write, read, join };
})(globalThis.labcoreWidgets);
