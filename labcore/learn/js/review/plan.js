// From what the diagnostic found to a path and its days: pure functions over plain data.
// A path: { id, days, enough, missed: [part], known: [part] }; a topic: { title, pages, parts }.
(function (W) {
  "use strict";

  // The path that the share of right answers asks for, and the one to take: it fits the days left (null: no date), if
  // any does. Paths come shortest first; `enough` is the least share for which a path is enough.
  function choose(paths, share, left) {
    const asked = paths.findIndex((path) => share >= path.enough);
    let fits = paths.length - 1;
    while (left !== null && fits > 0 && paths[fits].days > left) fits -= 1;
    return { asked: paths[asked], path: paths[Math.min(asked, fits)] };
  }

  // What there is to do, in reading order: [{ label, page, section, minutes }]. missed: the items that were not right.
  function tasks(path, topics, missed, minutes) {
    return topics.flatMap((topic) => {
      const here = missed.filter((item) => topic.pages.includes(item.page));
      const sections = new Map(here.map((item) => [`${item.page}#${item.section}`, { label: `Read “${item.heading}”`, page: item.page, section: item.section, minutes }]));
      return path[here.length ? "missed" : "known"].flatMap((part) => (part === "sections" ? [...sections.values()] : topic.parts[part] || []));
    });
  }

  // Tasks spread evenly over the days: rows [{ first, last, tasks }], days counted from 1; `daily` is minutes a day. What
  // takes no more than a day's minutes is done on the day it begins.
  function schedule(list, days) {
    const daily = list.reduce((sum, task) => sum + task.minutes, 0) / days;
    const rows = [];
    let done = 0;
    for (const task of list) {
      const first = Math.floor(done / daily + 1e-9) + 1;
      done += task.minutes;
      const last = task.minutes > daily ? Math.ceil(done / daily - 1e-9) : first;
      const row = rows[rows.length - 1];
      if (row && row.first === first && row.last === last) row.tasks.push(task);
      else rows.push({ first, last, tasks: [task] });
    }
    return { daily, rows };
  }

  W.plan = { choose, tasks, schedule };
})(globalThis.labcoreWidgets);
