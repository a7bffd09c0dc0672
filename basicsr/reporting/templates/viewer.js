"use strict";
// Two versions of a picture under a divider. Both move and grow together; the upper one is cut at the divider.
(() => {
  const LARGEST_ZOOM = 16;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function start(viewer) {
    const find = (selector) => viewer.querySelector(selector);
    const pictures = JSON.parse(find(".data").textContent);
    const stage = find(".stage"), above = find(".above"), divider = find(".divider"), position = find(".position");
    const choose = { picture: find(".picture"), left: find(".left"), right: find(".right") };
    const images = { left: find(".above img"), right: find(".below img") };
    const view = { zoom: 1, x: 0, y: 0 };

    function fill(select, texts, chosen) {
      select.replaceChildren(...texts.map((text) => new Option(text, text, false, text === chosen)));
    }

    function picture() {
      return pictures[choose.picture.selectedIndex];
    }

    function showPicture() {
      const labels = picture().versions.map((version) => version.label);
      fill(choose.left, labels, choose.left.value || viewer.dataset.left);
      fill(choose.right, labels, choose.right.value || viewer.dataset.right);
      const [width, height] = picture().size;
      stage.style.aspectRatio = `${width} / ${height}`;
      find(".crop").textContent = picture().crop ? `Shown: ${picture().crop}.` : "";
      showVersions();
      reset();
    }

    function showVersions() {
      for (const side of ["left", "right"]) {
        const version = picture().versions[choose[side].selectedIndex];
        images[side].src = version.source;
        images[side].alt = `${picture().name}, ${version.label}`;
        find(`.tag-${side}`).textContent = version.label;
        find(`.note-${side}`).textContent = version.label;
        find(`.value-${side}`).textContent = version.note;
      }
    }

    function showDivider() {
      const percent = Number(position.value);
      above.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
      divider.style.left = `${percent}%`;
    }

    function showZoom() {
      const { width, height } = stage.getBoundingClientRect();
      view.x = clamp(view.x, width * (1 - view.zoom), 0);
      view.y = clamp(view.y, height * (1 - view.zoom), 0);
      const transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
      for (const image of Object.values(images)) image.style.transform = transform;
      find(".zoom").textContent = `${Number(view.zoom.toFixed(1))}×`;
      stage.classList.toggle("zoomed", view.zoom > 1);
      find(".out").disabled = view.zoom <= 1;
      find(".in").disabled = view.zoom >= LARGEST_ZOOM;
    }

    function zoomBy(factor, x, y) {
      const before = view.zoom;
      view.zoom = clamp(before * factor, 1, LARGEST_ZOOM);
      view.x = x - (x - view.x) * (view.zoom / before);
      view.y = y - (y - view.y) * (view.zoom / before);
      showZoom();
      return view.zoom !== before;
    }

    function zoomAtMiddle(factor) {
      const { width, height } = stage.getBoundingClientRect();
      zoomBy(factor, width / 2, height / 2);
    }

    function reset() {
      Object.assign(view, { zoom: 1, x: 0, y: 0 });
      showZoom();
    }

    function setDivider(event) {
      const { left, width } = stage.getBoundingClientRect();
      position.value = clamp((100 * (event.clientX - left)) / width, 0, 100);
      showDivider();
    }

    function drag(element, begin, move) {
      element.addEventListener("pointerdown", (event) => {
        if (event.button !== 0 || !begin(event)) return;
        element.setPointerCapture(event.pointerId);
        const end = () => {
          element.removeEventListener("pointermove", move);
          element.removeEventListener("pointerup", end);
          element.removeEventListener("pointercancel", end);
        };
        element.addEventListener("pointermove", move);
        element.addEventListener("pointerup", end);
        element.addEventListener("pointercancel", end);
      });
    }

    drag(divider, (event) => { event.stopPropagation(); return true; }, setDivider);
    drag(stage, () => view.zoom > 1, (event) => {
      view.x += event.movementX;
      view.y += event.movementY;
      showZoom();
    });
    stage.addEventListener("click", (event) => {
      if (view.zoom === 1 && !divider.contains(event.target)) setDivider(event);
    });
    stage.addEventListener("wheel", (event) => {
      const { left, top } = stage.getBoundingClientRect();
      // at either end the wheel scrolls the page as usual
      if (zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - left, event.clientY - top)) event.preventDefault();
    }, { passive: false });
    stage.addEventListener("keydown", (event) => {
      const { width, height } = stage.getBoundingClientRect();
      const steps = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (event.key === "+" || event.key === "=") zoomAtMiddle(1.5);
      else if (event.key === "-") zoomAtMiddle(1 / 1.5);
      else if (event.key === "0") reset();
      else if (event.key in steps && view.zoom > 1) {
        view.x += (steps[event.key][0] * width) / 8;
        view.y += (steps[event.key][1] * height) / 8;
        showZoom();
      } else return;
      event.preventDefault();
    });
    find(".in").addEventListener("click", () => zoomAtMiddle(1.5));
    find(".out").addEventListener("click", () => zoomAtMiddle(1 / 1.5));
    find(".reset").addEventListener("click", () => { reset(); position.value = 50; showDivider(); });
    position.addEventListener("input", showDivider);
    choose.picture.addEventListener("change", showPicture);
    choose.left.addEventListener("change", showVersions);
    choose.right.addEventListener("change", showVersions);
    window.addEventListener("resize", showZoom);

    fill(choose.picture, pictures.map((one) => one.name), pictures[0].name);
    showPicture();
    showDivider();
  }

  document.querySelectorAll(".viewer").forEach(start);
})();
