// Two pictures on a Leaflet map under one slider: left of it the first is seen, right of it the second.
L.swipe = function (map, layers, names) {
  const room = L.DomUtil.create('div', 'swipe', map.getContainer());
  const line = L.DomUtil.create('div', 'swipe-line', room);
  for (const name of names) L.DomUtil.create('div', 'swipe-name', line).innerHTML = name;
  const slider = L.DomUtil.create('input', 'swipe-slider', room);
  Object.assign(slider, { type: 'range', min: 0, max: 100, step: 'any', value: 50 });
  slider.setAttribute('aria-label', 'left of here ' + line.children[0].innerText + ', right ' + line.children[1].innerText);
  L.DomEvent.disableClickPropagation(slider); // who drags the slider does not drag the map
  L.DomEvent.on(slider, 'keydown', e => {
    L.DomEvent.stopPropagation(e); // nor do its arrows move the map
    const step = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10 }[e.key];
    if (!step) return;
    L.DomEvent.preventDefault(e);
    slider.value = Number(slider.value) + step;
    draw();
  });
  function draw() {
    const x = slider.value / 100 * map.getSize().x;
    line.style.left = x + 'px';
    slider.setAttribute('aria-valuetext', Math.round(slider.value) + ' percent');
    layers.forEach((layer, k) => {
      const image = layer.getElement();
      if (!image) return; // switched off
      const [left, right] = [layer.getBounds().getNorthWest(), layer.getBounds().getSouthEast()]
        .map(corner => map.latLngToContainerPoint(corner).x);
      const cut = Math.min(Math.max(x - left, 0), right - left);
      image.style.clipPath = k ? `inset(0 0 0 ${cut}px)` : `inset(0 ${right - left - cut}px 0 0)`;
    });
  }
  slider.addEventListener('input', draw);
  map.on('move zoomend viewreset resize layeradd', draw);
  map.whenReady(draw);
};
