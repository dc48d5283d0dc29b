"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), swap = read("dark");
  const night = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();

  // A copy of a figure in the colours of the theme: light hues become their dark ones wherever they stand.
  const hued = (value) => {
    if (Array.isArray(value)) return value.map(hued);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, hued(inner)]));
    }
    return night.matches && Object.hasOwn(swap, value) ? swap[value] : value;
  };

  const axis = (own, css) => ({
    gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--soft"), tickcolor: css("--line"),
    zeroline: false, showline: false, ticks: "", tickfont: { size: 12 }, ...own,
    title: { standoff: 8, ...(own.title || {}), font: { size: 13, color: css("--soft") } },
  });

  const themed = (figure, width) => {
    const style = getComputedStyle(document.documentElement);
    const css = (name) => style.getPropertyValue(name).trim();
    const copy = hued(figure), layout = { ...copy.layout };
    delete layout.template;
    layout.autosize = true;
    layout.uirevision = "same";
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--ink") };
    layout.hoverlabel = {
      bgcolor: css("--card"), bordercolor: css("--soft"), align: "left", namelength: -1,
      font: { color: css("--ink"), size: width < 500 ? 11 : 13 },
    };
    if (!layout.scene) layout.dragmode = touch ? false : "zoom";
    if (layout.xaxis) layout.xaxis = axis(layout.xaxis, css);
    if (layout.yaxis) layout.yaxis = axis(layout.yaxis, css);
    if (layout.scene) {
      layout.scene = { ...layout.scene, dragmode: "orbit" };
      for (const name of ["xaxis", "yaxis", "zaxis"]) {
        const own = layout.scene[name];
        layout.scene[name] = { ...axis(own, css), color: css("--soft"), gridcolor: css("--line"),
          backgroundcolor: "rgba(0,0,0,0)", title: { ...own.title, font: { size: 14, color: css("--ink") } } };
      }
    }
    return { data: copy.data, layout };
  };

  const keys = () => {
    for (const line of document.querySelectorAll("[data-colour]")) line.style.color = hued(line.dataset.colour);
  };

  const draw = (place) => {
    const { data, layout } = themed(figures[place.id], place.clientWidth);
    const config = { responsive: true, displayModeBar: false };
    drawn.add(place);
    return Plotly.react(place, data, layout, config).then(() => place.setAttribute("data-drawn", ""));
  };

  // Figures are drawn shortly before they come into view: a page of many opens at once. Surfaces are taken down when they
  // have left it, since a browser keeps 16 of them and blanks the first.
  const near = new Set();
  const takeDown = (place) => {
    const { scene } = figures[place.id].layout;
    if (!scene || near.has(place) || !place.hasAttribute("data-drawn")) return;  // or still being drawn
    scene.camera = place.layout.scene.camera;  // as the reader has turned it
    drawn.delete(place);
    Plotly.purge(place);
    place.removeAttribute("data-drawn");
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target: place, isIntersecting } of entries) {
      const surface = figures[place.id].layout.scene;
      if (isIntersecting && !surface) {
        watcher.unobserve(place);
        draw(place);
      } else if (isIntersecting) {
        near.add(place);
        draw(place).then(() => takeDown(place));
      } else if (near.delete(place)) {
        takeDown(place);
      }
    }
  }, { rootMargin: "400px 0px" });
  for (const place of document.querySelectorAll(".canvas")) watcher.observe(place);
  night.addEventListener("change", () => { keys(); drawn.forEach(draw); });
  keys();
  addEventListener("beforeprint", () => document.querySelectorAll(".canvas:not([data-drawn])").forEach(draw));
  addEventListener("afterprint", () => document.querySelectorAll(".canvas").forEach(takeDown));

  // The gallery shows one loss beside the reference.
  for (const gallery of document.querySelectorAll(".gallery")) {
    const select = gallery.querySelector("select"), parts = gallery.querySelectorAll("[data-of]");
    const choose = () => parts.forEach((part) => { part.hidden = part.dataset.of !== select.value; });
    if (select) {
      select.addEventListener("change", choose);
      choose();
    }
  }
})();
