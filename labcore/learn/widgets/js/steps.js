// A calculator is a list of steps, each naming a registered formula. This runs the list; labcore/learn/widgets/steps.py
// runs the same list in Python and says what a step can be.
(function (W) {
  "use strict";
  const SIGNS = { "<": (a, b) => a < b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
  const look = (env, name) => (typeof name === "number" ? name : env[name]);

  // Every condition holds; one on a value that does not exist never does.
  function holds(conditions, env) {
    return (conditions || []).every(([left, sign, right]) => {
      const [a, b] = [look(env, left), look(env, right)];
      return a !== undefined && a !== null && b !== undefined && b !== null && SIGNS[sign](a, b);
    });
  }

  // What a step needs: [[formula input or position, name or number], …]
  function needs(step) {
    if (!step.formula) return Object.entries(step.product || step.ratio || step.sum.map(([name]) => name));
    const formula = (globalThis.labcoreFormulas || {})[step.formula];
    if (!formula) throw new Error(`formula ${step.formula} is not registered`);
    return formula.inputs.map(({ name }) => [name, (step.with || {})[name] ?? name]);
  }

  // null when something it needs is unknown
  function evaluate(step, env) {
    const v = {};
    for (const [key, name] of needs(step)) {
      if (typeof name === "string" && !(name in env)) throw new Error(`step ${step.id} needs ${name}`);
      v[key] = look(env, name);
    }
    if (Object.values(v).includes(null)) return null;
    if (step.formula) return globalThis.labcoreFormulas[step.formula].evaluate(v);
    if (step.product) return v[0] * v[1];
    if (step.ratio) return v[0] / v[1];
    return step.sum.reduce((total, [, factor], i) => total + v[i] * factor, 0);
  }

  // The steps that do not run others.
  const plain = (steps) => steps.filter((s) => !s.search && !s.best && !s.at);

  // The smallest whole value of `step.search` at which `step.value` reaches `step.reaches`; null if none up to 2^30.
  function search(step, earlier, given) {
    const enough = (x) => {
      const env = run(earlier, { ...given, [step.search]: x });
      const [value, bar] = [env[step.value], env[step.reaches]];
      return value !== null && bar !== null && value >= bar;
    };
    let [low, high] = [0, 1];
    while (!enough(high)) {
      if (high >= 2 ** 30) return null;
      [low, high] = [high, 2 * high];
    }
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (enough(middle)) high = middle;
      else low = middle;
    }
    return high;
  }

  // The whole value of `step.best` from 1 to `step.to` at which `step.value` is largest, the first of several.
  function best(step, earlier, given) {
    let [found, top] = [null, null];
    for (let x = 1; x <= step.to; x++) {
      const value = run(earlier, { ...given, [step.best]: x })[step.value];
      if (value !== null && !(top >= value && top !== null)) [found, top] = [x, value];
    }
    return found;
  }

  // `step.value` if `step.at` were what `step.from` is.
  const at = (step, earlier, given, env) => {
    const x = env[step.from];
    return x === null ? x : run(earlier, { ...given, [step.at]: x })[step.value];
  };

  // `given` and everything the steps add to it. Of several steps with one id the first whose conditions hold counts.
  function run(steps, given) {
    const env = { ...given };
    steps.forEach((step, i) => {
      env[step.id] ??= null;
      if (env[step.id] !== null || !holds(step.when, env)) return;
      const over = step.search ? search : step.best ? best : step.at ? at : 0;
      env[step.id] = over ? over(step, plain(steps.slice(0, i)), given, env) : evaluate(step, env);
    });
    return env;
  }

  // The first text whose conditions hold, with {name|unit} replaced: "one step takes {t_step|s}".
  function sentence(cases, env) {
    const found = (cases || []).find((item) => holds(item.when, env));
    return found ? found.text.replace(/\{(\w+)(?:\|([^}]*))?\}/g, (_, name, unit) => W.ui.format(env[name], unit)) : "";
  }

  W.steps = { run, holds, sentence, plain };
})(globalThis.labcoreWidgets);
