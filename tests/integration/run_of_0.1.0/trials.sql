BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'search');
INSERT INTO "studies" VALUES(2,'confirm');
INSERT INTO "studies" VALUES(3,'floor');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',2,0);
INSERT INTO "study_directions" VALUES(3,'MAXIMIZE',3,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'theta.and.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(2,1,'theta.and.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(3,1,'theta.or.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(4,1,'theta.or.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(5,1,'theta.score.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(6,1,'theta.score.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(7,2,'theta.and.p1.x',5.35599348627328386562e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(8,2,'theta.and.p1.y',5.67964896892625414892e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(9,2,'theta.or.p1.x',1.84262349279558756975e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(10,2,'theta.or.p1.y',3.86438478802688556434e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(11,2,'theta.score.p1.x',7.19021880698402893195e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(12,2,'theta.score.p1.y',0.584839760393515,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(13,3,'theta.and.p1.x',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(14,3,'theta.and.p1.y',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(15,3,'theta.or.p1.x',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(16,3,'theta.or.p1.y',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(17,3,'theta.score.p1.x',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(18,3,'theta.score.p1.y',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(19,4,'theta.and.p1.x',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(20,4,'theta.and.p1.y',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(21,4,'theta.or.p1.x',4.79112991083469497155e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(22,4,'theta.or.p1.y',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(23,4,'theta.score.p1.x',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(24,4,'theta.score.p1.y',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(25,5,'theta.and.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(26,5,'theta.and.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(27,5,'theta.or.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(28,5,'theta.or.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(29,5,'theta.score.p1.x',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(30,5,'theta.score.p1.y',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'round','0');
INSERT INTO "trial_user_attributes" VALUES(2,1,'index','0');
INSERT INTO "trial_user_attributes" VALUES(3,1,'kind','"candidate"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'name','"candidate 0.0"');
INSERT INTO "trial_user_attributes" VALUES(5,1,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(6,2,'round','0');
INSERT INTO "trial_user_attributes" VALUES(7,2,'index','1');
INSERT INTO "trial_user_attributes" VALUES(8,2,'kind','"candidate"');
INSERT INTO "trial_user_attributes" VALUES(9,2,'name','"candidate 0.1"');
INSERT INTO "trial_user_attributes" VALUES(10,2,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(11,1,'scores','{"miou": 0.1747011952191235, "fwiou": 0.7630126902747576, "dice": 0.18649654439128122, "macc": 0.2, "gacc": 0.8735059760956175, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.16954436450839327, "bf1": 0.0, "boundary_iou": 0.10981735159817352, "ece": 0.16185578352129792, "sce": 0.04994623017001838, "miou_i": 0.23074173440013546, "miou_c": 0.17462614300228602, "dice_i": 0.24733154279264946, "dice_c": 0.18639375771693334, "macc_i": 0.26666666666666666, "macc_c": 0.2, "miou_i_q10": 0.1809055118110236, "miou_c_q10": 0.16834677419354838, "dice_i_q10": 0.18997416020671837, "dice_c_q10": 0.1828133552271483, "macc_i_q10": 0.2, "macc_c_q10": 0.2}');
INSERT INTO "trial_user_attributes" VALUES(12,1,'outcome','{"device": "cpu", "state": "complete", "seconds": 0.7074918940052157, "attempts": 1, "error": "", "ended": 1796057700.7933025}');
INSERT INTO "trial_user_attributes" VALUES(13,2,'scores','{"miou": 0.1747011952191235, "fwiou": 0.7630126902747576, "dice": 0.18649654439128122, "macc": 0.2, "gacc": 0.8735059760956175, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.16954436450839327, "bf1": 0.0, "boundary_iou": 0.10981735159817352, "ece": 0.130576542945972, "sce": 0.04422978435005686, "miou_i": 0.23074173440013546, "miou_c": 0.17462614300228602, "dice_i": 0.24733154279264946, "dice_c": 0.18639375771693334, "macc_i": 0.26666666666666666, "macc_c": 0.2, "miou_i_q10": 0.1809055118110236, "miou_c_q10": 0.16834677419354838, "dice_i_q10": 0.18997416020671837, "dice_c_q10": 0.1828133552271483, "macc_i_q10": 0.2, "macc_c_q10": 0.2}');
INSERT INTO "trial_user_attributes" VALUES(14,2,'outcome','{"device": "cpu", "state": "complete", "seconds": 0.7538512699975399, "attempts": 1, "error": "", "ended": 1796057701.6518216}');
INSERT INTO "trial_user_attributes" VALUES(15,3,'round','1');
INSERT INTO "trial_user_attributes" VALUES(16,3,'index','0');
INSERT INTO "trial_user_attributes" VALUES(17,3,'kind','"candidate"');
INSERT INTO "trial_user_attributes" VALUES(18,3,'name','"candidate 1.0"');
INSERT INTO "trial_user_attributes" VALUES(19,3,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(20,4,'round','1');
INSERT INTO "trial_user_attributes" VALUES(21,4,'index','1');
INSERT INTO "trial_user_attributes" VALUES(22,4,'kind','"candidate"');
INSERT INTO "trial_user_attributes" VALUES(23,4,'name','"candidate 1.1"');
INSERT INTO "trial_user_attributes" VALUES(24,4,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(25,3,'scores','{"miou": 0.1747011952191235, "fwiou": 0.7630126902747576, "dice": 0.18649654439128122, "macc": 0.2, "gacc": 0.8735059760956175, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.16954436450839327, "bf1": 0.0, "boundary_iou": 0.10981735159817352, "ece": 0.16692981351003705, "sce": 0.05076015191628673, "miou_i": 0.23074173440013546, "miou_c": 0.17462614300228602, "dice_i": 0.24733154279264946, "dice_c": 0.18639375771693334, "macc_i": 0.26666666666666666, "macc_c": 0.2, "miou_i_q10": 0.1809055118110236, "miou_c_q10": 0.16834677419354838, "dice_i_q10": 0.18997416020671837, "dice_c_q10": 0.1828133552271483, "macc_i_q10": 0.2, "macc_c_q10": 0.2}');
INSERT INTO "trial_user_attributes" VALUES(26,3,'outcome','{"device": "cpu", "state": "complete", "seconds": 1.1176069359935354, "attempts": 1, "error": "", "ended": 1796057707.3873546}');
INSERT INTO "trial_user_attributes" VALUES(27,4,'scores','{"miou": 0.02964787447546068, "fwiou": 0.15538557319708576, "dice": 0.05034076827757125, "macc": 0.037058152793614595, "gacc": 0.16185258964143426, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.03328850033624748, "bf1": 0.0915538362346873, "boundary_iou": 0.03032895987830386, "ece": 0.5381960772586415, "sce": 0.20733079012302433, "miou_i": 0.058309605185998314, "miou_c": 0.0357692233945152, "dice_i": 0.0880670147992967, "dice_c": 0.05437702851671783, "macc_i": 0.06323609581707097, "macc_c": 0.0387251177731588, "miou_i_q10": 0.003917301414581066, "miou_c_q10": 0.003917301414581066, "dice_i_q10": 0.00768409818569904, "dice_c_q10": 0.00768409818569904, "macc_i_q10": 0.003917301414581066, "macc_c_q10": 0.003917301414581066}');
INSERT INTO "trial_user_attributes" VALUES(28,4,'outcome','{"device": "cpu", "state": "complete", "seconds": 1.1564282399922376, "attempts": 1, "error": "", "ended": 1796057708.6175504}');
INSERT INTO "trial_user_attributes" VALUES(29,5,'round','-1');
INSERT INTO "trial_user_attributes" VALUES(30,5,'index','0');
INSERT INTO "trial_user_attributes" VALUES(31,5,'kind','"candidate"');
INSERT INTO "trial_user_attributes" VALUES(32,5,'name','"candidate 0.0"');
INSERT INTO "trial_user_attributes" VALUES(33,5,'seed','1849581847');
INSERT INTO "trial_user_attributes" VALUES(34,6,'round','-1');
INSERT INTO "trial_user_attributes" VALUES(35,6,'index','1');
INSERT INTO "trial_user_attributes" VALUES(36,6,'kind','"rival"');
INSERT INTO "trial_user_attributes" VALUES(37,6,'name','"ce"');
INSERT INTO "trial_user_attributes" VALUES(38,6,'seed','1849581847');
INSERT INTO "trial_user_attributes" VALUES(39,5,'scores','{"miou": 0.1442115768463074, "fwiou": 0.7558180451845313, "dice": 0.15462814339218833, "macc": 0.1977194982896237, "gacc": 0.8635458167330677, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.13962339743589744, "bf1": 0.04444444444444444, "boundary_iou": 0.09900804791315741, "ece": 0.12347187664344966, "sce": 0.042180831351212686, "miou_i": 0.22793588680969534, "miou_c": 0.1729426344480219, "dice_i": 0.24566188136052317, "dice_c": 0.18539196085765758, "macc_i": 0.2626746506986028, "macc_c": 0.19760479041916168, "miou_i_q10": 0.1809055118110236, "miou_c_q10": 0.16497975708502025, "dice_i_q10": 0.18997416020671837, "dice_c_q10": 0.1808097615085968, "macc_i_q10": 0.2, "macc_c_q10": 0.19520958083832335}');
INSERT INTO "trial_user_attributes" VALUES(40,5,'outcome','{"device": "cpu", "state": "complete", "seconds": 1.3638313569972524, "attempts": 1, "error": "", "ended": 1796057710.2735543}');
INSERT INTO "trial_user_attributes" VALUES(41,6,'scores','{"miou": 0.1747011952191235, "fwiou": 0.7630126902747576, "dice": 0.18649654439128122, "macc": 0.2, "gacc": 0.8735059760956175, "precision": 0.0, "recall": 0.0, "f1": 0.0, "biou": 0.16954436450839327, "bf1": 0.0, "boundary_iou": 0.10981735159817352, "ece": 0.21837956951077717, "sce": 0.07530643847393977, "miou_i": 0.23074173440013546, "miou_c": 0.17462614300228602, "dice_i": 0.24733154279264946, "dice_c": 0.18639375771693334, "macc_i": 0.26666666666666666, "macc_c": 0.2, "miou_i_q10": 0.1809055118110236, "miou_c_q10": 0.16834677419354838, "dice_i_q10": 0.18997416020671837, "dice_c_q10": 0.1828133552271483, "macc_i_q10": 0.2, "macc_c_q10": 0.2}');
INSERT INTO "trial_user_attributes" VALUES(42,6,'outcome','{"device": "cpu", "state": "complete", "seconds": 1.4828599879983813, "attempts": 1, "error": "", "ended": 1796057711.8729944}');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.7470119521912350069e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,1.7470119521912350069e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,1.7470119521912350069e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,2.96478744754606789169e-02,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,1.44211576846307393262e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,1.7470119521912350069e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-30 16:54:59.939021','2026-11-30 16:55:00.865000');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-30 16:55:00.025600','2026-11-30 16:55:01.707202');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-30 16:55:06.102012','2026-11-30 16:55:07.440085');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-30 16:55:06.201778','2026-11-30 16:55:08.679385');
INSERT INTO "trials" VALUES(5,0,2,'COMPLETE','2026-11-30 16:55:08.754343','2026-11-30 16:55:10.347025');
INSERT INTO "trials" VALUES(6,1,2,'COMPLETE','2026-11-30 16:55:08.846050','2026-11-30 16:55:11.976205');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
