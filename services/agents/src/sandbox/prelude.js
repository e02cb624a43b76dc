// Runs before the agent's code, in its global scope, and answers with the `ctx` object.
(function (facts, now, seed, log, progress, tool) {
  "use strict";
  const text = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return String(value.stack ? value + "\n" + value.stack : value);
    try {
      const json = JSON.stringify(value);
      return json === undefined ? String(value) : json;
    } catch (_) {
      return String(value);
    }
  };
  const line = (...values) => log(values.map(text).join(" ").slice(0, 8192));
  globalThis.console = Object.freeze({ log: line, info: line, warn: line, error: line, debug: line });

  // The same for every attempt: the time is that of the task's start, chance begins with its id (sfc32).
  const Real = Date;
  function Fixed(...parts) {
    if (!new.target) return new Real(now).toString();
    return Reflect.construct(Real, parts.length ? parts : [now], new.target === Fixed ? Real : new.target);
  }
  Fixed.prototype = Real.prototype;
  Fixed.now = () => now;
  Fixed.parse = Real.parse;
  Fixed.UTC = Real.UTC;
  Real.prototype.constructor = Fixed;
  globalThis.Date = Fixed;
  let [a, b, c, d] = seed;
  Math.random = () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4294967296;
  };
  for (let i = 0; i < 12; i++) Math.random();

  return Object.freeze({
    ...facts,
    log: line,
    progress: (fraction) => progress(Number(fraction)),
    tool: (name, args) => {
      const answer = JSON.parse(tool(String(name), JSON.stringify(args === undefined ? {} : args)));
      if (answer.error) throw Object.assign(new Error(answer.error.message), { code: answer.error.code, retryable: answer.error.retryable });
      return answer.result;
    },
  });
})
