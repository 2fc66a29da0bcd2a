async () => {
  // What tests/test_pages_in_browser.py wants to know of the page that is open. Runs in the browser.

  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  // What is folded is measured too, once it has faded in.
  document.querySelectorAll("details").forEach((folded) => (folded.open = true));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (const animation of document.getAnimations()) {
    if (animation.effect.getComputedTiming().endTime === Infinity) animation.cancel();
    else animation.finish();
  }

  const isShown = (element) => {
    const visible = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    const box = element.getBoundingClientRect();
    return visible && box.width > 0 && box.height > 0;
  };

  const nameOf = (element) => {
    const own = [...element.classList].map((name) => `.${name}`).join("");
    const text = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${element.tagName.toLowerCase()}${element.id && `#${element.id}`}${own}> ${JSON.stringify(text)}`;
  };

  // Links

  const links = [...document.querySelectorAll("a[href]")].map((link) => [link.href, nameOf(link)]);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.push(...[...document.querySelectorAll("a[name]")].map((element) => element.name));

  // Pictures and figures

  const wordsFor = (picture) =>
    (picture.tagName === "IMG" ? picture.alt : "") ||
    picture.getAttribute("aria-label") ||
    document.getElementById(picture.getAttribute("aria-labelledby"))?.textContent ||
    picture.querySelector(":scope > title")?.textContent ||
    "";
  const pictures = [...document.querySelectorAll("img, svg[role=img], [role=img]")].filter(
    (picture) => !picture.closest("[aria-hidden=true]"),
  );
  const wordless = pictures
    .filter((picture) => !wordsFor(picture).trim())
    .map((picture) => `${nameOf(picture)} ${picture.getAttribute("src") ?? ""}`);
  const broken = pictures
    .filter((picture) => picture.tagName === "IMG" && picture.complete && picture.naturalWidth === 0)
    .map((picture) => picture.getAttribute("src"));
  const uncaptioned = [...document.querySelectorAll("figure")]
    .filter((figure) => !figure.querySelector("figcaption")?.textContent.trim())
    .map(nameOf);

  // Width: what sticks out of the window on the right without a box around it that scrolls

  const scrolls = (element) => /auto|scroll/.test(getComputedStyle(element).overflowX);
  const inScrollingBox = (element) => {
    for (let box = element.parentElement; box && box.tagName !== "ARTICLE"; box = box.parentElement) {
      if (scrolls(box) && box.getBoundingClientRect().right <= window.innerWidth + 1) return true;
    }
    return false;
  };
  const sticksOut = (element) => isShown(element) && element.getBoundingClientRect().right > window.innerWidth + 1;
  const tooWide = [...document.querySelectorAll("article *")]
    .filter((element) => sticksOut(element) && !sticksOut(element.parentElement))
    .filter((element) => !element.closest("mjx-assistive-mml") && !inScrollingBox(element))
    .map(nameOf);

  // Contrast of text, after WCAG 2.2, 1.4.3: https://www.w3.org/TR/WCAG22/#contrast-minimum

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = new Map();
  const channels = (colour) => {
    if (!seen.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      seen.set(colour, [red, green, blue, alpha / 255]);
    }
    return seen.get(colour);
  };
  const over = (front, back) =>
    [0, 1, 2].map((channel) => front[channel] * front[3] + back[channel] * (1 - front[3]));
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const once = (compute) => {
    const known = new Map();
    return (element) => {
      if (!known.has(element)) known.set(element, compute(element));
      return known.get(element);
    };
  };
  // The colour behind an element; null over a picture or a gradient, which cannot be told from here.
  const backgroundOf = once((element) => {
    if (element === null) return channels("canvas").slice(0, 3);
    const style = getComputedStyle(element);
    if (style.backgroundImage !== "none") return null;
    const colour = channels(style.backgroundColor);
    const behind = colour[3] === 1 ? [0, 0, 0] : backgroundOf(element.parentElement);
    return behind && over(colour, behind);
  });
  const opacityOf = once((element) =>
    element === null ? 1 : Number(getComputedStyle(element).opacity) * opacityOf(element.parentElement),
  );
  const pale = new Map();
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !isShown(element) || element.closest(":disabled, option, title"))
      continue;
    const style = getComputedStyle(element);
    const back = backgroundOf(element);
    if (back === null) continue;
    texts += 1;
    const [red, green, blue, alpha] = channels(element instanceof SVGElement ? style.fill : style.color);
    const ratio = contrast(over([red, green, blue, alpha * opacityOf(element)], back), back);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) {
      const numbers = `${ratio.toFixed(2)} to 1, rgb(${[red, green, blue]}) on rgb(${back.map(Math.round)})`;
      // One of a kind is enough to find the rule that makes it pale.
      const kind = `${element.tagName} ${element.getAttribute("class")} ${numbers}`;
      if (!pale.has(kind)) pale.set(kind, `${nameOf(element)}: ${numbers}`);
    }
  }

  return {
    links,
    ids,
    wordless,
    broken,
    uncaptioned,
    width: document.documentElement.scrollWidth,
    tooWide,
    texts,
    pale: [...pale.values()],
    theme: document.documentElement.dataset.theme,
    interactive: [...document.querySelectorAll("figure.mmoe-interactive")].map((figure) => figure.dataset.figure),
    data: [...document.querySelectorAll('script[type="application/json"]')].map((data) => new Blob([data.textContent]).size),
  };
};
