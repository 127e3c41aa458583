// Texts of map, video, assessment, survey, labels, alarm channels, settings and two sites.
import { addTexts } from "./lib.js";

const en = {
  mapHelp: "Circles stand for devices near one another; their colour is that of the worst state. No boundaries are drawn.",
  approvalOf: "{0}: approval number {1}",
  tilesWord: "Base map", overlayWord: "Overlay", noTiles: "No base map is configured (web.map.tiles_directory); devices stand on an empty ground.",
  noPlaces: "No device in your scope has a place.", devicesHere: "{0} devices, {1} silent", placesShown: "Places on the map", zoomTo: "Closer",
  cameras: "Cameras", countsNow: "Counts and flows now", byClassAndLine: "by class and line", countsByHour: "Last 24 hours, by hour", historyOff: "The gateway keeps no history (history.enabled), so there are no hours to add up.",
  noCameras: "No cameras are registered in your scope.", noCounts: "No counts or flows have come.", videoHelp: "Only counts, flows and events are kept: faces, plates and pictures are removed before storage.", registrations: "Registrations by GA/T 1400",
  line: "Line or class", hourWord: "Hour", sum: "Sum",
  assessmentHelp: "Score = 25 points each for authenticity, accuracy, continuity and completeness: the mean over all hours of all devices. An indicator that was judged in no hour is left out, and the others count for more.",
  knownHours: "{0} of {1} hours of this month are known here, since {2}.", month: "Month", groupBy: "By", score: "Score", print: "Print", byDevice: "By device", noAssessment: "No quality indicators for this month.",
  surveyHelp: "Components (部件) are what is registered: by class, place, department, owner, state, and what the registry lacks.", bySurvey: "By class and place", components: "Components", exportCsv: "All as CSV", exportGeojson: "All as GeoJSON", noComponents: "Nothing is registered in your scope.",
  "gap.place": "no place", "gap.owner": "no owner", "gap.department": "no department", "gap.domain": "no class", "gap.asset": "no asset code", "gap.name": "no name", "gap.never_heard": "never heard",
  labelsHelp: "Choose devices, then print: 30 labels a sheet of A4. The code holds division and id, nothing secret.", noLabels: "No device matches.", labelOf: "QR code of {0}",
  channelsHelp: "Events of alarms go to each channel whose place and severity they fit. Addresses are limited by egress.allow, mail by alarms.mail.domains.", addChannel: "Add a channel", addChannelHelp: "It delivers what happens from now on.", trial: "Send a trial", trialHelp: "Sends one message now.", trialDone: "The receiver accepted it.", trialFailed: "The receiver did not accept it: {0}", deleteChannel: "Delete", deleteChannelHelp: "Nothing more is delivered by {0}.", noChannels: "Alarms are delivered nowhere: they are seen in this console only.", onCall: "On call", secretWord: "Secret", recipientsWord: "Recipients, separated by commas", address: "Address", language: "Language of messages",
  "channel.webhook": "webhook", "channel.wecom": "WeCom robot", "channel.dingtalk": "DingTalk robot", "channel.mail": "mail",
  settingsHelp: "As they are in force. Default: the value is the default one. Secrets stand in files and are never shown.", "origin.configuration": "configuration", "origin.default": "default", onlyChanged: "Only those that differ from the default", allSettings: "All",
  sitesHelp: "Two centres keep the same log; one is active, by a term that more than half of the nodes grant.", noSites: "This gateway has no second site (peer.url, uplink.other_centres).", active: "active", alone: "delivers without a standby", term: "Term", voters: "Voters", followed: "Follows the centre", granted: "Granted term", otherSite: "The other site", termHistory: "Terms of the log",
  "survey.components": "components", receivedCount: "messages", "column.on_call": "on call", "column.city": "city", "column.gaps": "missing",
};
const zh = {
  mapHelp: "圆点代表相邻的设备，颜色取其中最差的状态。不绘制任何界线。",
  approvalOf: "{0}：审图号 {1}",
  tilesWord: "底图", overlayWord: "叠加图层", noTiles: "未配置底图（web.map.tiles_directory），设备显示在空白底上。",
  noPlaces: "权限范围内没有带位置的设备。", devicesHere: "{0} 台设备，{1} 台静默", placesShown: "图上位置", zoomTo: "放大",
  cameras: "摄像机", countsNow: "当前计数与流量", byClassAndLine: "按类别与检测线", countsByHour: "最近 24 小时，按小时", historyOff: "本网关未启用历史库（history.enabled），无法按小时汇总。",
  noCameras: "权限范围内没有登记的摄像机。", noCounts: "尚无计数或流量。", videoHelp: "只保存计数、流量和事件：人脸、号牌和图片在入库前已去除。", registrations: "GA/T 1400 注册情况",
  line: "检测线或类别", hourWord: "小时", sum: "合计",
  assessmentHelp: "得分 = 真实性、准确性、连续性、完整性各 25 分，取全部设备全部小时的平均值。没有任何小时可判定的指标不计，其余指标权重相应提高。",
  knownHours: "本月 {1} 个小时中，本机已知 {0} 个，自 {2} 起。", month: "月份", groupBy: "分组", score: "得分", print: "打印", byDevice: "按设备", noAssessment: "本月没有质量指标。",
  surveyHelp: "部件即已登记的对象：按类别、位置、部门、权属、状态，以及登记缺项。", bySurvey: "按类别与位置", components: "部件清单", exportCsv: "全部导出 CSV", exportGeojson: "全部导出 GeoJSON", noComponents: "权限范围内没有登记。",
  "gap.place": "缺位置", "gap.owner": "缺权属单位", "gap.department": "缺主管部门", "gap.domain": "缺类别", "gap.asset": "缺部件编码", "gap.name": "缺名称", "gap.never_heard": "从未上报",
  labelsHelp: "选择设备后打印：A4 每页 30 枚。二维码只含区划和编号，不含密钥。", noLabels: "没有符合条件的设备。", labelOf: "{0} 的二维码",
  channelsHelp: "告警事件按位置和级别送达各渠道。可达地址由 egress.allow 限定，邮件域名由 alarms.mail.domains 限定。", addChannel: "新增渠道", addChannelHelp: "从现在起发生的告警将由它送达。", trial: "试发", trialHelp: "立即发送一条消息。", trialDone: "对方已接收。", trialFailed: "对方未接收：{0}", deleteChannel: "删除", deleteChannelHelp: "{0} 将不再送达任何消息。", noChannels: "告警未送往任何渠道，只能在本控制台查看。", onCall: "值班", secretWord: "密钥", recipientsWord: "收件人，逗号分隔", address: "地址", language: "消息语言",
  "channel.webhook": "Webhook", "channel.wecom": "企业微信机器人", "channel.dingtalk": "钉钉机器人", "channel.mail": "邮件",
  settingsHelp: "当前生效的设置。“默认”指取值与默认值相同。密钥保存在文件中，从不显示。", "origin.configuration": "配置", "origin.default": "默认", onlyChanged: "仅与默认不同的", allSettings: "全部",
  sitesHelp: "两个中心保存同一日志，其中一个为主；任期须经半数以上节点授予。", noSites: "本网关没有第二站点（peer.url、uplink.other_centres）。", active: "主用", alone: "无备用站点时单独投递", term: "任期", voters: "投票节点", followed: "跟随的中心", granted: "已授予任期", otherSite: "另一站点", termHistory: "日志的任期",
  "survey.components": "部件数", receivedCount: "消息数", "column.on_call": "值班", "column.city": "地市", "column.gaps": "缺项", "column.url": "地址", "column.entry": "条目", "column.delivered": "已送达", "column.key": "键", "column.default": "默认值", "column.origin": "来源", "column.help": "说明", "column.devices": "设备数", "column.lat": "纬度", "column.lon": "经度",
};
addTexts({ en, zh });
